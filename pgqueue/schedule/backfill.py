"""Backfills: windows of the past, inserted bit by bit by the tick and run a few at a time.

The row says how far the windows were inserted, and moves in the transaction that inserts them. So
one that is interrupted goes on where it was, in whichever process ticks next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import psycopg

from pgqueue.db.run import Row, Statement, Steps
from pgqueue.engine.operate import WAIT, Operator, batches
from pgqueue.errors import ConfigError, JobBusy, ScheduleNotFound
from pgqueue.schedule.cron import Cron, Moment, instant_of, utc
from pgqueue.schedule.failing import mark_failed, safely
from pgqueue.schedule.fill import Filled, JobTemplate, Mode, Share, insert_windows
from pgqueue.schedule.windows import Window
from pgqueue.tasks.values import EARLIEST, LATEST

Sql = Mapping[str, str]

AHEAD = 200
"""Windows of one backfill that wait at most: the rest is inserted as these end."""

PLAN_LIMIT = 100_000
"""Windows of a range that a dry run looks at, at most."""


def windows_in(cron: Cron, start: datetime, end: datetime) -> Iterator[Window]:
    """The windows that lie in [start, end) altogether, oldest first."""
    fires = cron.between(utc(start), utc(end))
    previous = next(fires, None)
    if previous is None:
        return
    for fire in fires:
        yield Window(previous, fire)
        previous = fire


@dataclass(frozen=True, slots=True)
class FoundSchedule:
    """A schedule as `find_schedule` gives it: what its jobs have in common, its time, and now."""

    template: JobTemplate
    cron: Cron
    window_mode: str
    next_run_at: datetime
    starts_at: datetime
    ends_at: datetime
    now: datetime


def find_schedule(sql: Sql, name: str) -> Steps[FoundSchedule]:
    """The schedule of that name; raises ScheduleNotFound."""
    rows = yield Statement(sql["find_schedule"], {"name": name})
    if not rows:
        raise ScheduleNotFound(f"schedule {name!r}")
    *columns, cron, timezone, window_mode, next_run_at, starts_at, ends_at, now = rows[0]
    return FoundSchedule(
        template=JobTemplate(*columns),
        cron=Cron(cron, timezone),
        window_mode=window_mode,
        next_run_at=utc(next_run_at),
        starts_at=utc(starts_at or EARLIEST),
        ends_at=utc(ends_at or LATEST),
        now=utc(now),
    )


def lock_schedule(sql: Sql, name: str) -> Steps[FoundSchedule]:
    """The schedule of that name, locked to the transaction's end; raises ScheduleNotFound."""
    yield Statement(sql["lock_schedule"], {"name": name})
    return (yield from find_schedule(sql, name))


def plan_backfill(sql: Sql, name: str, start: Moment, end: Moment) -> Steps[list[Window]]:
    """The windows that a backfill of [start, end) would run: those that were not run yet."""
    schedule = yield from find_schedule(sql, name)
    begin, until = _checked_range(schedule, start, end)
    windows = list(islice(windows_in(schedule.cron, begin, until), PLAN_LIMIT + 1))
    if len(windows) > PLAN_LIMIT:
        raise ConfigError(
            f"from {begin} to {until} are more than {PLAN_LIMIT:,} windows: plan a shorter range "
            "(the backfill itself may be as long as you like)"
        )
    params = {
        "schedule_id": schedule.template.id,
        "window_starts": [window.start for window in windows],
        "window_ends": [window.end for window in windows],
    }
    rows = yield Statement(sql["find_uncovered"], params)
    uncovered = {utc(window_start) for (window_start,) in rows}
    return [window for window in windows if window.start in uncovered]


def add_backfill(
    sql: Sql, name: str, start: Moment, end: Moment, *, concurrency: int, operator: Operator
) -> Steps[int]:
    """Store a backfill of [start, end), for the tick; returns its id.

    An unfinished one of the same range is gone on with. Raises ScheduleNotFound, ConfigError.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= AHEAD:
        raise ConfigError(f"concurrency {concurrency!r} is not valid: 1 to {AHEAD}")
    schedule = yield from lock_schedule(sql, name)
    begin, until = _checked_range(schedule, start, end)
    place = {"schedule_id": schedule.template.id, "range_start": begin, "range_end": until}
    rows = yield Statement(sql["continue_backfill"], {**place, "concurrency": concurrency})
    if not rows:
        asked = {**place, **operator.params, "name": name, "concurrency": concurrency}
        rows = yield Statement(sql["add_backfill"], asked)
    return int(rows[0][0])


def _checked_range(
    schedule: FoundSchedule, start: Moment, end: Moment
) -> tuple[datetime, datetime]:
    if schedule.window_mode != Mode.WINDOW:
        raise ConfigError("a schedule of since-last-run windows has none to fill in: use `run`")
    begin = instant_of("start", start, schedule.cron.timezone)
    until = instant_of("end", end, schedule.cron.timezone)
    if begin >= until:
        raise ConfigError("a backfill ends after it starts")
    if until > schedule.now:
        raise ConfigError("a backfill ends now at the latest: later windows come by themselves")
    return begin, until


def cancel_backfill(sql: Sql, backfill_id: int, operator: Operator) -> Steps[bool]:
    """Stop it: what runs goes on to its end, what waits is cancelled; False if it had ended.

    For a transaction. Raises ScheduleNotFound, and JobBusy while somebody holds one of its jobs.
    """
    if not (yield Statement(sql["lock_backfill"], {"id": backfill_id})):
        raise ScheduleNotFound(f"backfill {backfill_id}", "pgq schedule backfills")
    rows = yield Statement(sql["cancel_backfill"], {"id": backfill_id, **operator.params})
    waiting = [job_id for (job_id,) in rows if job_id is not None]
    yield from cancel_held(sql, waiting, "its backfill was cancelled")
    yield Statement(sql["close_cancelled"], {"id": backfill_id})
    return bool(rows)


def cancel_held(sql: Sql, ids: Sequence[int], message: str) -> Steps[None]:
    """Cancel jobs that wait for their turn, inside a transaction; raises JobBusy."""
    yield Statement(sql["wait_for_rows"], {"wait": f"{WAIT:g}s"})
    said = {"reason": "cancelled", "message": message, "who": None, "source": None}
    for batch in batches(ids):
        try:
            yield Statement(sql["cancel_jobs"], {"ids": list(batch), **said})
        except psycopg.errors.LockNotAvailable:
            raise JobBusy(tuple(batch), WAIT) from None


def expand_backfills(sql: Sql) -> Steps[tuple[bool, Filled]]:
    """Insert the next windows of what is under way; returns whether there may be more to do."""
    rows = yield Statement(sql["lock_backfills"], {"most": AHEAD})
    filled = Filled()
    for row in rows:
        *_, schedule_id, name = row
        did = yield from safely(_expand(sql, row))
        if isinstance(did, Filled):
            filled = Filled(filled.windows + did.windows, filled.jobs + did.jobs)
        else:
            yield from mark_failed(sql, schedule_id, name, did)
    return bool(rows), filled


def _expand(sql: Sql, row: Row) -> Steps[Filled]:
    backfill_id, reached, range_end, open_ones, is_over, _, name = row
    reached, range_end = utc(reached), utc(range_end)
    if is_over:
        yield Statement(sql["finish_backfill"], {"id": backfill_id})
        return Filled()
    room = AHEAD - open_ones
    schedule = yield from find_schedule(sql, name)
    windows = list(islice(windows_in(schedule.cron, reached, range_end), room))
    share = Share(schedule.template, windows)
    filled = yield from insert_windows(sql, [share], Mode.BACKFILL, backfill_id=backfill_id)
    reached = windows[-1].end if len(windows) == room else range_end
    yield Statement(sql["advance_backfill"], {"id": backfill_id, "reached": reached})
    return filled.get(schedule.template.id, Filled())

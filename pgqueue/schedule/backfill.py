"""Backfills: windows of the past, inserted bit by bit by the tick and run a few at a time.

The row says how far the windows were inserted, and moves in the transaction that inserts them. So
one that is interrupted goes on where it was, in whichever process ticks next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pgqueue.db.run import Row, Statement, Steps
from pgqueue.engine.cancel import cancel_jobs
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError, ScheduleNotFound
from pgqueue.schedule.cron import Cron, utc
from pgqueue.schedule.fill import Filled, JobTemplate, Mode, Share, insert_windows
from pgqueue.schedule.windows import Window

Sql = Mapping[str, str]

AHEAD = 200
"""Windows of one backfill that wait at most: the rest is inserted as these end."""

PLAN_LIMIT = 100_000
"""Windows that a dry run lists at most."""

_MICRO = timedelta(microseconds=1)


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
class LockedSchedule:
    """A schedule as `lock_schedule` gives it: what its jobs have in common, its time, and now."""

    template: JobTemplate
    cron: Cron
    window_mode: str
    now: datetime


def lock_schedule(sql: Sql, name: str) -> Steps[LockedSchedule]:
    """The schedule of that name, locked to the transaction's end; raises ScheduleNotFound."""
    rows = yield Statement(sql["lock_schedule"], {"name": name})
    if not rows:
        raise ScheduleNotFound(f"schedule {name!r}")
    *columns, cron, timezone, window_mode, now = rows[0]
    return LockedSchedule(JobTemplate(*columns), Cron(cron, timezone), window_mode, utc(now))


def plan_backfill(sql: Sql, name: str, start: datetime, end: datetime) -> Steps[list[Window]]:
    """The windows that a backfill of [start, end) would run: those that were not run yet."""
    schedule = yield from lock_schedule(sql, name)
    _check_range(schedule, start, end)
    windows = list(islice(windows_in(schedule.cron, start, end), PLAN_LIMIT))
    params = {
        "schedule_id": schedule.template.id,
        "window_starts": [window.start for window in windows],
        "window_ends": [window.end for window in windows],
    }
    rows = yield Statement(sql["find_uncovered"], params)
    uncovered = {utc(window_start) for (window_start,) in rows}
    return [window for window in windows if window.start in uncovered]


def add_backfill(
    sql: Sql, name: str, start: datetime, end: datetime, *, concurrency: int, operator: Operator
) -> Steps[int]:
    """Store a backfill of [start, end), for the tick; returns its id.

    An unfinished one of the same range is gone on with. Raises ScheduleNotFound, ConfigError.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= AHEAD:
        raise ConfigError(f"concurrency {concurrency!r} is not valid: 1 to {AHEAD}")
    schedule = yield from lock_schedule(sql, name)
    _check_range(schedule, start, end)
    place = {
        "schedule_id": schedule.template.id,
        "range_start": utc(start),
        "range_end": utc(end),
    }
    rows = yield Statement(sql["find_backfill"], place)
    if not rows:
        asked = {**place, **operator.params, "name": name, "concurrency": concurrency}
        rows = yield Statement(sql["add_backfill"], asked)
    return int(rows[0][0])


def _check_range(schedule: LockedSchedule, start: datetime, end: datetime) -> None:
    if schedule.window_mode != Mode.WINDOW:
        raise ConfigError("a schedule of since-last-run windows has none to fill in: use `run`")
    if utc(start) >= utc(end):
        raise ConfigError("a backfill ends after it starts")
    if utc(end) > schedule.now:
        raise ConfigError("a backfill ends now at the latest: later windows come by themselves")


def cancel_backfill(sql: Sql, backfill_id: int, operator: Operator) -> Steps[bool]:
    """Stop it: what runs goes on to its end, what waits is cancelled; False if it had ended."""
    rows = yield Statement(sql["cancel_backfill"], {"id": backfill_id, **operator.params})
    waiting = [job_id for (job_id,) in rows if job_id is not None]
    if waiting:
        yield from cancel_jobs(sql, waiting, message="its backfill was cancelled")
        yield Statement(sql["close_cancelled"], {"id": backfill_id})
    return bool(rows)


def expand_backfills(sql: Sql) -> Steps[tuple[bool, Filled]]:
    """Insert the next windows of what is under way; returns whether there is room for more."""
    rows = yield Statement(sql["lock_backfills"])
    filled, more = Filled(), False
    for row in rows:
        has_room, did = yield from _expand(sql, row)
        more = more or has_room
        filled = Filled(filled.windows + did.windows, filled.jobs + did.jobs, did.job_id)
    return more, filled


def _expand(sql: Sql, row: Row) -> Steps[tuple[bool, Filled]]:
    backfill_id, reached, range_end, is_cancelled, open_ones, name = row
    reached, range_end = utc(reached), utc(range_end)
    if is_cancelled or reached >= range_end:
        yield from _advance(sql, backfill_id, reached, is_finished=not open_ones)
        return False, Filled()
    if open_ones >= AHEAD:
        return False, Filled()
    schedule = yield from lock_schedule(sql, name)
    windows = list(islice(windows_in(schedule.cron, reached, range_end), AHEAD - open_ones))
    share = Share(schedule.template, windows)
    by_id = yield from insert_windows(sql, [share], Mode.BACKFILL, backfill_id=backfill_id)
    filled = by_id.get(schedule.template.id, Filled())
    is_last = len(windows) < AHEAD - open_ones
    yield from _advance(
        sql, backfill_id, range_end if is_last else windows[-1].end, is_finished=False
    )
    return True, filled


def _advance(sql: Sql, backfill_id: int, reached: datetime, *, is_finished: bool) -> Steps[None]:
    params: dict[str, Any] = {"id": backfill_id, "reached": reached, "is_finished": is_finished}
    yield Statement(sql["advance_backfill"], params)

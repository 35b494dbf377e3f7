"""One pass of the scheduler: what is due is inserted, what is held and has its turn is let go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pgqueue.db.run import Statement, Steps, in_transaction
from pgqueue.errors import ConfigError
from pgqueue.events import ScheduleLate, ScheduleTicked, emit
from pgqueue.job import Json
from pgqueue.schedule.backfill import expand_backfills
from pgqueue.schedule.cron import Cron
from pgqueue.schedule.failing import mark_failed, safely
from pgqueue.schedule.fill import (
    Filled,
    JobTemplate,
    Mode,
    insert_windows,
    put_window,
    share_of_due,
)
from pgqueue.schedule.release import release_windows
from pgqueue.schedule.windows import CatchUp, Due, Window, due_windows

Sql = Mapping[str, str]

SCHEDULES_A_PASS = 100
WINDOWS_A_PASS = 1000
"""Bounds of one transaction: a schedule that is years behind catches up over several."""

PASSES_A_TURN = 10
"""After so many passes held windows get their turn, too: to catch up may take minutes."""

PASSES = 10_000
"""Where a tick stops and leaves the rest to the next one."""

LATE = timedelta(seconds=60)
"""From when on a tick that comes late is told of."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one tick did: windows and jobs inserted, held jobs let go."""

    windows: int = 0
    jobs: int = 0
    released: int = field(default=0, repr=False)

    def plus(self, windows: int, jobs: int, released: int = 0) -> Ticked:
        return Ticked(self.windows + windows, self.jobs + jobs, self.released + released)


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule as `lock_due_schedules` gives it, columns in its order."""

    id: int
    name: str
    cron: str
    timezone: str
    task: str
    queue: str
    payload: Mapping[str, Json]
    catch_up: str
    delay: float
    max_attempts: int
    window_parameters: list[str]
    next_run_at: datetime | None
    failures: int
    last_window_end: datetime | None
    now: datetime
    overlap: str
    priority: int
    tags: list[str]
    tenant: str | None
    timeout: float | None
    window_mode: str
    catch_up_max_age: float | None
    catch_up_max_count: int | None
    jitter: float
    ends_at: datetime | None
    after_id: int | None

    @property
    def template(self) -> JobTemplate:
        names = JobTemplate.__dataclass_fields__
        return JobTemplate(**{name: getattr(self, name) for name in names})


def tick(sql: Sql) -> Steps[Ticked]:
    """Insert every due window that does not exist yet and one job for each; all or nothing a pass.

    Then the held jobs whose turn it is are let go. Any number of tickers may run at once. For a
    connection in autocommit. A schedule that cannot be ticked is marked with its error and the
    others go on.
    """
    ticked = Ticked()
    for number in range(1, PASSES + 1):
        more, did = yield from in_transaction(_pass(sql))
        ticked = ticked.plus(did.windows, did.jobs, did.released)
        if not more:
            break
        if number % PASSES_A_TURN == 0:
            _, did = yield from in_transaction(_turns(sql))
            ticked = ticked.plus(did.windows, did.jobs, did.released)
    return ticked


def look_ahead(sql: Sql) -> Steps[tuple[float | None, bool]]:
    """Seconds until a schedule is due, negative when one is already, None where there is none; and
    whether a window is held or a backfill under way.
    """
    ((seconds, is_held),) = yield Statement(sql["seconds_to_next_schedule"])
    return (None if seconds is None else float(seconds)), is_held


def _pass(sql: Sql) -> Steps[tuple[bool, Ticked]]:
    rows = yield Statement(sql["lock_due_schedules"], {"n": SCHEDULES_A_PASS})
    if rows:
        return True, (yield from _tick_all(sql, [DueSchedule(*row) for row in rows]))
    # Last, and in a transaction that holds no schedule that is due: whoever waits for one of these
    # rows never waits in a circle.
    return (yield from _turns(sql))


def _turns(sql: Sql) -> Steps[tuple[bool, Ticked]]:
    ((is_held, is_filling),) = yield Statement(sql["look_for_held"])
    more, filled = (yield from expand_backfills(sql)) if is_filling else (False, Filled())
    released = (yield from release_windows(sql)) if is_held or is_filling else 0
    return more, Ticked(filled.windows, filled.jobs, released)


def _tick_all(sql: Sql, schedules: list[DueSchedule]) -> Steps[Ticked]:
    """All in two statements; where that fails, one by one, so that the culprit alone is marked."""
    limit = WINDOWS_A_PASS // len(schedules)
    if len(schedules) > 1:
        done = yield from safely(_tick_together(sql, schedules, limit))
        if isinstance(done, Ticked):
            return done
    did = Ticked()
    for schedule in schedules:
        done = yield from safely(_tick_together(sql, [schedule], limit))
        if isinstance(done, Ticked):
            did = did.plus(done.windows, done.jobs)
        else:
            yield from mark_failed(sql, schedule.id, schedule.name, done)
    return did


def _tick_together(sql: Sql, schedules: list[DueSchedule], limit: int) -> Steps[Ticked]:
    dues = [(schedule, _due(schedule, limit)) for schedule in schedules]
    filled: dict[int, Filled] = {}
    shares = []
    for schedule, due in dues:
        if schedule.window_mode == Mode.SINCE_LAST_RUN:
            filled[schedule.id] = yield from _since_last_run(sql, schedule, due)
        else:
            shares.append((yield from share_of_due(sql, schedule.template, due.windows)))
    filled |= yield from insert_windows(sql, shares)
    yield Statement(sql["advance_schedules"], _advance(dues))
    for schedule, due in dues:
        _tell(schedule, due, filled.get(schedule.id, Filled()))
    return Ticked(
        sum(one.windows for one in filled.values()), sum(one.jobs for one in filled.values())
    )


def _tell(schedule: DueSchedule, due: Due, filled: Filled) -> None:
    emit(ScheduleTicked(schedule.name, filled.windows, due.next_run_at.isoformat()))
    late = schedule.now - (schedule.next_run_at or schedule.now)
    if late > LATE:
        emit(ScheduleLate(schedule.name, late.total_seconds()))


def _due(schedule: DueSchedule, limit: int) -> Due:
    if schedule.next_run_at is None:
        raise ConfigError("next_run_at is out of range: set it to a time in the years 1 to 9999")
    since_last = schedule.window_mode == Mode.SINCE_LAST_RUN
    age = schedule.catch_up_max_age
    return due_windows(
        Cron(schedule.cron, schedule.timezone),
        schedule.next_run_at,
        schedule.now,
        last_window_end=schedule.last_window_end,
        # One run covers all that was missed.
        catch_up=CatchUp.LATEST if since_last else CatchUp(schedule.catch_up),
        limit=limit,
        max_age=None if age is None or since_last else timedelta(seconds=age),
        max_count=None if since_last else schedule.catch_up_max_count,
        ends_at=schedule.ends_at,
    )


def _since_last_run(sql: Sql, schedule: DueSchedule, due: Due) -> Steps[Filled]:
    """The window from the last completed run to the newest fire.

    While a run is under way there is none: the next one begins where that one ends.
    """
    if not due.windows:
        return Filled()
    ((last,),) = yield Statement(sql["find_last_success"], {"schedule_id": schedule.id})
    newest = due.windows[-1]
    window = Window(last or newest.start, newest.end)
    ((live,),) = yield Statement(sql["count_live_windows"], {"schedule_id": schedule.id})
    if live or window.start >= window.end:
        return Filled()
    job_id = yield from put_window(sql, schedule.template, window, Mode.SINCE_LAST_RUN)
    return Filled(1, 1, job_id) if job_id else Filled()


def _advance(dues: list[tuple[DueSchedule, Due]]) -> dict[str, Any]:
    return {
        "schedule_ids": [schedule.id for schedule, _ in dues],
        "next_run_ats": [due.next_run_at for _, due in dues],
        "last_run_ats": [due.windows[-1].end if due.windows else None for _, due in dues],
    }

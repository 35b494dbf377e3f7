"""One pass of the scheduler: the only code that writes windows and their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from pgqueue.db.run import Row, Statement, Steps
from pgqueue.errors import ConfigError, PgQueueError
from pgqueue.events import ScheduleFailed, ScheduleTicked, emit
from pgqueue.job import Json, storable_json
from pgqueue.schedule.cron import Cron
from pgqueue.schedule.windows import CatchUp, Due, Window, due_windows

Sql = Mapping[str, str]

SCHEDULES_A_PASS = 100
WINDOWS_A_PASS = 1000
"""Bounds of one transaction: a schedule that is years behind catches up over several."""

PASSES = 10_000
"""Where a tick stops and leaves the rest to the next one."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one tick did."""

    windows: int = 0
    jobs: int = 0


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


def tick(sql: Sql) -> Steps[Ticked]:
    """Insert every due window that does not exist yet and one job for each; all or nothing a pass.

    Any number of tickers may run at once. For a connection in autocommit. A schedule that cannot
    be ticked is marked with its error and the others go on.
    """
    inserted = 0
    for _ in range(PASSES):
        yield Statement("begin isolation level read committed")
        try:
            more, count = yield from _pass(sql)
        except Exception:
            yield Statement("rollback")
            raise
        yield Statement("commit")
        inserted += count
        if not more:
            break
    return Ticked(windows=inserted, jobs=inserted)


def seconds_to_next(sql: Sql) -> Steps[float | None]:
    """Seconds until a schedule is due, negative when one is already; None where there is none."""
    ((seconds,),) = yield Statement(sql["seconds_to_next_schedule"])
    return None if seconds is None else float(seconds)


def _pass(sql: Sql) -> Steps[tuple[bool, int]]:
    rows = yield Statement(sql["lock_due_schedules"], {"n": SCHEDULES_A_PASS})
    inserted = 0
    for row in rows:
        inserted += yield from _tick_safely(sql, DueSchedule(*row))
    return bool(rows), inserted


def _tick_safely(sql: Sql, schedule: DueSchedule) -> Steps[int]:
    yield Statement("savepoint schedule")
    try:
        count = yield from _tick_one(sql, schedule)
    except (PgQueueError, psycopg.DatabaseError, ValueError) as error:
        if isinstance(error, psycopg.OperationalError):
            raise
        yield Statement("rollback to savepoint schedule")
        yield from _mark_failed(sql, schedule, error)
        return 0
    yield Statement("release savepoint schedule")
    return count


def _tick_one(sql: Sql, schedule: DueSchedule) -> Steps[int]:
    if schedule.next_run_at is None:
        raise ConfigError("next_run_at is out of range: set it to a time in the years 1 to 9999")
    due = due_windows(
        Cron(schedule.cron, schedule.timezone),
        schedule.next_run_at,
        schedule.now,
        last_window_end=schedule.last_window_end,
        catch_up=CatchUp(schedule.catch_up),
        limit=WINDOWS_A_PASS,
    )
    count = 0
    if due.windows:
        ((count,),) = yield Statement(sql["insert_windows"], _windows(schedule, due.windows))
    yield Statement(sql["advance_schedule"], _advance(schedule, due))
    emit(ScheduleTicked(schedule.name, count, due.next_run_at.isoformat()))
    return count


def _windows(schedule: DueSchedule, windows: tuple[Window, ...]) -> dict[str, Any]:
    return {
        "schedule_id": schedule.id,
        "task": schedule.task,
        "queue": schedule.queue,
        "delay": schedule.delay,
        "max_attempts": schedule.max_attempts,
        "window_starts": [window.start for window in windows],
        "window_ends": [window.end for window in windows],
        "payloads": [storable_json(_payload(schedule, window)) for window in windows],
    }


def _payload(schedule: DueSchedule, window: Window) -> dict[str, Json]:
    span = {
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat(),
        "mode": "window",
    }
    filled = {name: value for name, value in span.items() if name in schedule.window_parameters}
    return {**schedule.payload, **filled}


def _advance(schedule: DueSchedule, due: Due) -> dict[str, Any]:
    last = due.windows[-1].end if due.windows else None
    return {"schedule_id": schedule.id, "next_run_at": due.next_run_at, "last_run_at": last}


def _mark_failed(sql: Sql, schedule: DueSchedule, error: Exception) -> Steps[None]:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    params = {"schedule_id": schedule.id, "error": reason}
    rows: list[Row] = yield Statement(sql["mark_failed_schedule"], params)
    emit(ScheduleFailed(schedule.name, reason, rows[0][0]))

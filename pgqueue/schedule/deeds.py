"""What operators do to schedules and windows: pause, resume, run now, run again, remove, look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.filters import STATES
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError, ScheduleNotFound, WindowBusy
from pgqueue.schedule.backfill import cancel_held, find_schedule, lock_schedule
from pgqueue.schedule.cron import Moment, instant_of, utc
from pgqueue.schedule.fill import Mode, put_window, renew_window
from pgqueue.schedule.release import release_windows
from pgqueue.schedule.store import checked_name, schedule_id
from pgqueue.schedule.windows import Window

Sql = Mapping[str, str]

_MICRO = timedelta(microseconds=1)


def pause_schedule(sql: Sql, name: str, operator: Operator, reason: str | None) -> Steps[bool]:
    """Let it fire no more; False when it was paused already. Raises ScheduleNotFound."""
    yield from schedule_id(sql, name)
    params = {"name": name, "reason": reason, **operator.params}
    return bool((yield Statement(sql["pause_schedule"], params)))


def resume_schedule(sql: Sql, name: str, operator: Operator) -> Steps[bool]:
    """Let it fire again; False when it was not paused. Raises ScheduleNotFound."""
    yield from schedule_id(sql, name)
    return bool((yield Statement(sql["resume_schedule"], {"name": name, **operator.params})))


def remove_schedule(sql: Sql, name: str, operator: Operator) -> Steps[None]:
    """Remove it with its windows; jobs that run or are queued go on, held ones are cancelled.

    For a transaction. Raises ScheduleNotFound, ConfigError where another one runs after it, and
    JobBusy while somebody holds one of its jobs.
    """
    rows = yield Statement(sql["lock_schedule"], {"name": name})
    if not rows:
        raise ScheduleNotFound(f"schedule {name!r}")
    place = {"id": rows[0][0]}
    if followers := (yield Statement(sql["find_next_followers"], place)):
        raise ConfigError(
            f"schedule {followers[0][0]!r} runs after {name!r}, and would not wait any more: "
            "take its `after` back first (pgq schedule edit --clear after)"
        )
    held = yield Statement(sql["find_held_jobs"], place)
    yield from cancel_held(sql, [job_id for (job_id,) in held], "its schedule was removed")
    yield Statement(sql["remove_schedule"], {**place, **operator.params})


def run_now(sql: Sql, name: str, operator: Operator) -> Steps[int]:
    """Run it now, for the span from its last fire (or run) until now; returns the job's id.

    The regular window comes at its time all the same. Raises ScheduleNotFound, WindowBusy.
    """
    schedule = yield from lock_schedule(sql, name)
    mode = Mode.MANUAL
    start = schedule.cron.previous(schedule.now)
    if schedule.window_mode == Mode.SINCE_LAST_RUN:
        mode = Mode.SINCE_LAST_RUN
        ((last,),) = yield Statement(
            sql["find_last_success"], {"schedule_id": schedule.template.id}
        )
        start = start if last is None else utc(last)
    if start >= schedule.now:
        raise ConfigError(f"schedule {name!r} has run up to {start} already: try again later")
    window = Window(start, schedule.now)
    alone = replace(schedule.template, after_id=None)
    job_id = yield from put_window(sql, alone, window, mode)
    if job_id is None:
        raise WindowBusy(f"schedule {name!r}, as it was run before,")
    yield from _record(sql, "run", name, operator, {"job": job_id})
    yield from release_windows(sql)
    return job_id


def rerun_window(sql: Sql, window_id: int, operator: Operator) -> Steps[int]:
    """Run a window again, with the schedule as it is now; returns the new job's id.

    Its row points at the new job from the same commit on, with `run` one higher. Raises
    ScheduleNotFound, and WindowBusy while its last job lives.
    """
    rows = yield Statement(sql["find_window"], {"id": window_id})
    if not rows:
        raise ScheduleNotFound(f"window {window_id}", "pgq window list")
    _, name, start, end, mode = rows[0]
    schedule = yield from lock_schedule(sql, name)
    window = Window(utc(start), utc(end))
    job_id = yield from renew_window(sql, schedule.template, window_id, window, mode)
    if job_id is None:
        raise WindowBusy(f"window {window_id}")
    yield from _record(sql, "rerun", name, operator, {"window": window_id, "job": job_id})
    yield from release_windows(sql)
    return job_id


def _record(
    sql: Sql, action: str, name: str, operator: Operator, details: dict[str, Any]
) -> Steps[None]:
    params = {**operator.params, "action": action, "name": name, "details": json.dumps(details)}
    yield Statement(sql["record_schedule_deed"], params)


WINDOW_COLUMNS = (
    "id", "schedule", "window_start", "window_end", "mode", "run", "job_id", "state", "attempt",
    "started_at", "finished_at", "held", "backfill_id", "lag", "duration",
)  # fmt: skip
BACKFILL_COLUMNS = (
    "id", "schedule", "range_start", "range_end", "concurrency", "reached", "created_at",
    "created_by", "cancelled_at", "windows", "waiting", "open", "completed", "failed", "state",
)  # fmt: skip
PROBLEM_COLUMNS = (
    "id", "name", "problems", "failed_in_a_row", "late_by", "open_since", "failures", "last_error",
    "waiting",
)  # fmt: skip


WINDOW_STATES = (*STATES, "skipped", "lost")


def list_windows(
    sql: Sql, schedule: str | None, state: str | None, limit: int
) -> Steps[list[dict[str, Any]]]:
    """The newest windows, of one schedule or of all, with lag and duration."""
    if state is not None and state not in WINDOW_STATES:
        raise ConfigError(f"state {state!r} is not valid: {', '.join(WINDOW_STATES)}")
    if schedule is not None:
        yield from schedule_id(sql, checked_name(schedule))
    params = {"schedule": schedule, "state": state, "n": limit}
    rows = yield Statement(sql["list_windows"], params)
    return [dict(zip(WINDOW_COLUMNS, row, strict=True)) for row in rows]


def list_backfills(sql: Sql, schedule: str | None) -> Steps[list[dict[str, Any]]]:
    """Backfills, the newest first, with how far they are; raises ScheduleNotFound."""
    if schedule is not None:
        yield from schedule_id(sql, checked_name(schedule))
    rows = yield Statement(sql["list_backfills"], {"schedule": schedule})
    return [dict(zip(BACKFILL_COLUMNS, row, strict=True)) for row in rows]


def list_problems(sql: Sql) -> Steps[list[dict[str, Any]]]:
    """Schedules with something wrong, as the view schedule_health tells it."""
    rows = yield Statement(sql["list_problems"], {"ids": None})
    return [dict(zip(PROBLEM_COLUMNS, row, strict=True)) for row in rows]


def next_fires(
    sql: Sql, name: str, count: int, after: Moment | None
) -> Steps[tuple[list[datetime], str]]:
    """The coming `count` fires (UTC) and the schedule's zone; without `after`, from now on.

    Fewer where it ends before. Raises ScheduleNotFound.
    """
    schedule = yield from find_schedule(sql, name)
    cron, timezone = schedule.cron, schedule.cron.timezone
    if after is None:
        begin = max(schedule.now + _MICRO, schedule.next_run_at)
    else:
        begin = max(instant_of("after", after, timezone) + _MICRO, schedule.starts_at)
    fires = cron.between(begin, schedule.ends_at)
    return list(islice(fires, count)), timezone

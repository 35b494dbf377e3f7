"""Schedules as they are stored: add, change, list. What they lead to is tick.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError
from pgqueue.job import Json, storable_json
from pgqueue.schedule.cron import Cron
from pgqueue.schedule.windows import CatchUp
from pgqueue.tasks.names import checked_queue
from pgqueue.tasks.task import Task

Sql = Mapping[str, str]

NAME_LIMIT = 200
DELAY_LIMIT = 366 * 86_400
"""Seconds; what cannot be added to a time would only fail at each tick."""
WINDOW_PARAMETERS = ("window_start", "window_end", "mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule to store. `delay` is in seconds, from the end of a window to its job."""

    name: str
    cron: str
    timezone: str = "UTC"
    task: Task[Any]
    payload: Mapping[str, Json] = field(default_factory=dict)
    queue: str | None = None
    catch_up: CatchUp = CatchUp.ALL
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= NAME_LIMIT:
            raise ConfigError(
                f"schedule name {self.name!r} is not valid: 1 to {NAME_LIMIT} characters"
            )
        if not 0 <= self.delay <= DELAY_LIMIT:
            raise ConfigError(f"delay {self.delay!r} is not valid: 0 to {DELAY_LIMIT:g} seconds")
        if self.queue is not None:
            checked_queue(self.queue)
        Cron(self.cron, self.timezone)
        self.stored_payload()

    @property
    def window_parameters(self) -> list[str]:
        """Which of window_start, window_end and mode the task takes and the payload leaves open."""
        takes = self.task.signature.names
        return [name for name in WINDOW_PARAMETERS if name in takes and name not in self.payload]

    def stored_payload(self) -> dict[str, Json]:
        """The payload as it will be stored; raises PayloadInvalid if a tick could not use it."""
        now = datetime.now(UTC).isoformat()  # text, as the tick fills it in
        span = {"window_start": now, "window_end": now, "mode": "window"}
        open_ones = self.window_parameters
        filled = self.task.signature.payload_of_json(
            {**self.payload, **{name: span[name] for name in open_ones}}
        )
        return {name: value for name, value in filled.items() if name not in open_ones}


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored schedule: its id, when it fires next (UTC), and whether it is new."""

    id: int
    next_run_at: datetime
    is_new: bool


def put_schedule(sql: Sql, schedule: Schedule, operator: Operator | None = None) -> Steps[Stored]:
    """Add the schedule, or change the one of that name; audit_log tells it of an `operator`.

    A new or changed time fires first at its next instant from now on, by the database's clock.
    """
    ((now,),) = yield Statement(sql["clock"])
    params = {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "task": schedule.task.name,
        "queue": schedule.queue or schedule.task.options.queue,
        "payload": storable_json(schedule.stored_payload()),
        "catch_up": str(schedule.catch_up),
        "delay": schedule.delay,
        "max_attempts": schedule.task.retry.attempts,
        "window_parameters": schedule.window_parameters,
        "next_run_at": Cron(schedule.cron, schedule.timezone).next(now),
        "who": operator.who if operator else None,
        "source": operator.source if operator else None,
    }
    rows = yield Statement(sql["put_schedule"], params)
    schedule_id, next_run_at, is_new = rows[0]
    return Stored(schedule_id, next_run_at.astimezone(UTC), is_new)


LISTED = (
    "id",
    "name",
    "cron",
    "timezone",
    "task",
    "queue",
    "payload",
    "enabled",
    "catch_up",
    "overlap",
    "delay",
    "next_run_at",
    "last_run_at",
    "failures",
    "last_error",
)
"""The columns of `list_schedules`, in its order."""


def list_schedules(sql: Sql) -> Steps[list[dict[str, Any]]]:
    """All schedules by name, each a mapping with the SQL column names."""
    rows = yield Statement(sql["list_schedules"])
    return [dict(zip(LISTED, row, strict=True)) for row in rows]

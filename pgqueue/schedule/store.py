"""Schedules as they are stored: add, change, list. What they lead to is tick.py's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from croniter import CroniterBadDateError

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError, ScheduleNotFound
from pgqueue.events import SchedulesUndeclared, emit
from pgqueue.job import Json, is_storable, storable_json
from pgqueue.schedule.cron import Cron, Moment
from pgqueue.schedule.fill import Mode, Overlap
from pgqueue.schedule.windows import CatchUp
from pgqueue.tasks.names import checked_queue
from pgqueue.tasks.options import TENANT_LIMIT
from pgqueue.tasks.task import Task
from pgqueue.tasks.values import (
    checked_priority,
    checked_span,
    checked_tags,
    checked_text,
    checked_time,
)

Sql = Mapping[str, str]

NAME_LIMIT = 200
DELAY_LIMIT = 366 * 86_400
"""Seconds; what cannot be added to a time would only fail at each tick."""
COUNT_LIMIT = 10_000
"""Windows that `catch_up_max_count` may leave at most; each tick walks back over so many fires."""
WINDOW_PARAMETERS = ("window_start", "window_end", "mode")
WINDOW_MODES = (Mode.WINDOW, Mode.SINCE_LAST_RUN)
_MICRO = timedelta(microseconds=1)


class Policies(TypedDict, total=False):
    """What may be said of a schedule beside its time and its task; see `Schedule`."""

    timezone: str
    payload: Mapping[str, Json]
    queue: str | None
    priority: int | None
    tags: Sequence[str] | None
    tenant: str | None
    timeout: float | None
    catch_up: str
    catch_up_max_age: float | None
    catch_up_max_count: int | None
    overlap: str
    delay: float
    jitter: float
    starts_at: Moment | None
    ends_at: Moment | None
    window_mode: str
    after: str | None


def checked_name(name: str) -> str:
    """The name as it is; raises ConfigError unless a schedule can be called so."""
    if not is_storable(name) or not name.isprintable() or not 1 <= len(name) <= NAME_LIMIT:
        raise ConfigError(
            f"schedule name {str(name)[:NAME_LIMIT]!r} is not valid: "
            f"1 to {NAME_LIMIT} printable characters"
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule to store. Its jobs take queue, priority, tags, tenant and timeout from its task
    where it says nothing itself. Seconds: `delay` from the end of a window to its job, `jitter` the
    most that comes on top, `catch_up_max_age`, `timeout`. `after`: the name of another schedule.
    """

    name: str
    cron: str
    timezone: str = "UTC"
    task: Task[Any]
    payload: Mapping[str, Json] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    tags: Sequence[str] | None = None
    tenant: str | None = None
    timeout: float | None = None
    catch_up: CatchUp = CatchUp.ALL
    catch_up_max_age: float | None = None
    catch_up_max_count: int | None = None
    overlap: Overlap = Overlap.QUEUE
    delay: float = 0.0
    jitter: float = 0.0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    window_mode: Mode = Mode.WINDOW
    after: str | None = None
    declared: bool = False

    def __post_init__(self) -> None:
        checked_name(self.name)
        if not isinstance(self.task, Task):
            raise ConfigError(f"task {self.task!r} is not valid: a task, or the name of one")
        if type(self.declared) is not bool:
            raise ConfigError(f"declared {self.declared!r} is not valid: True or False")
        self._check_policies()
        self._check_life()
        self._check_options()
        if not isinstance(self.payload, Mapping):
            raise ConfigError(f"payload {self.payload!r} is not valid: a mapping of arguments")
        Cron(self.cron, self.timezone)
        self.stored_payload()

    def _check_policies(self) -> None:
        for name in ("delay", "jitter"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= DELAY_LIMIT:
                raise ConfigError(f"{name} {value!r} is not valid: 0 to {DELAY_LIMIT} seconds")
        if self.catch_up_max_age is not None:
            checked_span("catch_up_max_age", self.catch_up_max_age)
        count = self.catch_up_max_count
        if count is not None and (type(count) is not int or not 1 <= count <= COUNT_LIMIT):
            raise ConfigError(f"catch_up_max_count {count!r} is not valid: 1 to {COUNT_LIMIT}")
        if self.window_mode not in WINDOW_MODES:
            raise ConfigError(
                f"window_mode {str(self.window_mode)!r} is not valid: {', '.join(WINDOW_MODES)}"
            )

    def _check_life(self) -> None:
        checked_time("starts_at", self.starts_at)
        checked_time("ends_at", self.ends_at)
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ConfigError("starts_at must be before ends_at")
        if self.after is not None and self.window_mode != Mode.WINDOW:
            raise ConfigError("after needs windows from fire to fire: it compares their spans")
        if self.after is not None:
            checked_name(self.after)
        if self.after == self.name:
            raise ConfigError(f"schedule {self.name!r} cannot run after itself")

    def _check_options(self) -> None:
        if self.queue is not None:
            checked_queue(self.queue)
        if self.priority is not None:
            checked_priority(self.priority)
        if self.tags is not None:
            checked_tags(self.tags)
        checked_text("tenant", self.tenant, TENANT_LIMIT)
        if self.timeout is not None:
            checked_span("timeout", self.timeout)

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

    def job_params(self) -> dict[str, Any]:
        """The columns that its jobs take over; the task's options where it is silent."""
        options = self.task.options
        return {
            "task": self.task.name,
            "queue": self.queue or options.queue,
            "payload": storable_json(self.stored_payload()),
            "max_attempts": self.task.retry.attempts,
            "window_parameters": self.window_parameters,
            "priority": options.priority if self.priority is None else self.priority,
            "tags": list(options.tags if self.tags is None else checked_tags(self.tags)),
            "tenant": self.tenant or options.tenant,
            "timeout": options.timeout if self.timeout is None else self.timeout,
        }

    def time_params(self, now: datetime) -> dict[str, Any]:
        """The columns that say when it fires, from `now` on."""
        begin = now if self.starts_at is None else max(now, self.starts_at - _MICRO)
        try:
            next_run_at = Cron(self.cron, self.timezone).next(begin)
        except (OverflowError, CroniterBadDateError) as error:
            raise ConfigError(f"schedule {self.name!r} never fires after {begin}") from error
        return {
            "cron": self.cron,
            "timezone": self.timezone,
            "catch_up": str(self.catch_up),
            "catch_up_max_age": self.catch_up_max_age,
            "catch_up_max_count": self.catch_up_max_count,
            "overlap": str(self.overlap),
            "window_mode": str(self.window_mode),
            "delay": self.delay,
            "jitter": self.jitter,
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
            "next_run_at": next_run_at,
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored schedule: its id, when it fires next (UTC), and whether it is new."""

    id: int
    next_run_at: datetime
    is_new: bool


def put_schedule(sql: Sql, schedule: Schedule, operator: Operator | None = None) -> Steps[Stored]:
    """Add the schedule, or change the one of that name; audit_log tells it of an `operator`.

    A new or changed time fires first at its next instant from now on, by the database's clock.
    Raises ScheduleNotFound for an `after` that is none, ConfigError for a circle.
    """
    ((now,),) = yield Statement(sql["clock"])
    after_id = yield from _after_id(sql, schedule)
    params = {
        "name": schedule.name,
        **schedule.job_params(),
        **schedule.time_params(now),
        "after_id": after_id,
        "declared": schedule.declared,
        "who": operator.who if operator else None,
        "source": operator.source if operator else None,
    }
    rows = yield Statement(sql["put_schedule"], params)
    schedule_id, next_run_at, is_new = rows[0]
    return Stored(schedule_id, next_run_at.astimezone(UTC), is_new)


def edit_schedule(
    sql: Sql, name: str, edited: Callable[[Mapping[str, Any]], Schedule], operator: Operator
) -> Steps[Stored]:
    """Store what `edited` makes of the schedule's row; for a transaction, which locks it."""
    yield Statement(sql["lock_schedule"], {"name": name})
    row = yield from get_schedule(sql, name)
    return (yield from put_schedule(sql, edited(row), operator))


def _after_id(sql: Sql, schedule: Schedule) -> Steps[int | None]:
    if schedule.after is None and schedule.window_mode == Mode.WINDOW:
        return None
    # Two that are put at once could make a circle that neither sees.
    yield Statement(sql["lock_followers"])
    own = yield Statement(sql["find_schedule_id"], {"name": schedule.name})
    followers = (yield Statement(sql["find_followers"], {"id": own[0][0]})) if own else []
    if schedule.after is None:
        if followers:
            raise ConfigError(
                f"schedule {schedule.name!r} needs windows from fire to fire: another one runs "
                "after it, and compares their spans"
            )
        return None
    after_id = yield from schedule_id(sql, schedule.after)
    ((_, mode),) = yield Statement(sql["find_schedule_id"], {"name": schedule.after})
    if mode != Mode.WINDOW:
        raise ConfigError(
            f"schedule {schedule.name!r} cannot run after {schedule.after!r}: the windows of that "
            "one go from its last run on, so no other schedule has the same"
        )
    if (after_id,) in followers:
        raise ConfigError(
            f"schedule {schedule.name!r} cannot run after {schedule.after!r}: that one runs "
            "after it, and both would wait for ever"
        )
    return after_id


def schedule_id(sql: Sql, name: str) -> Steps[int]:
    """The id of the schedule of that name; raises ScheduleNotFound."""
    rows = yield Statement(sql["find_schedule_id"], {"name": name})
    if not rows:
        raise ScheduleNotFound(f"schedule {name!r}")
    return int(rows[0][0])


def put_declared(sql: Sql, schedules: Sequence[Schedule], tasks: Sequence[str]) -> Steps[None]:
    """Store what code declares; tells of what it declared before and does not any more."""
    for schedule in _parents_first(schedules):
        yield from put_schedule(sql, schedule)
    params = {"names": [schedule.name for schedule in schedules], "tasks": list(tasks)}
    rows = yield Statement(sql["find_undeclared"], params)
    if rows:
        emit(SchedulesUndeclared(tuple(name for (name,) in rows)))


def _parents_first(schedules: Sequence[Schedule]) -> list[Schedule]:
    waiting = {schedule.name: schedule for schedule in schedules}
    ordered: list[Schedule] = []
    while waiting:
        ready = [one for one in waiting.values() if one.after not in waiting]
        if not ready:
            circle = ", ".join(sorted(waiting))
            raise ConfigError(f"schedules {circle} run after each other in a circle")
        ordered += ready
        for one in ready:
            del waiting[one.name]
    return ordered


LISTED = (
    "id", "name", "cron", "timezone", "task", "queue", "payload", "enabled", "catch_up", "overlap",
    "delay", "next_run_at", "last_run_at", "failures", "last_error", "priority", "tags", "tenant",
    "timeout", "window_mode", "catch_up_max_age", "catch_up_max_count", "jitter", "starts_at",
    "ends_at", "after", "declared", "paused_at", "paused_by", "pause_reason",
)  # fmt: skip
"""The columns of `list_schedules`, in its order."""


def list_schedules(sql: Sql, name: str | None = None) -> Steps[list[dict[str, Any]]]:
    """All schedules by name, or the one of that name, as mappings with the SQL column names."""
    rows = yield Statement(sql["list_schedules"], {"name": name})
    return [dict(zip(LISTED, row, strict=True)) for row in rows]


def get_schedule(sql: Sql, name: str) -> Steps[dict[str, Any]]:
    """The schedule of that name; raises ScheduleNotFound."""
    rows = yield from list_schedules(sql, name)
    if not rows:
        raise ScheduleNotFound(f"schedule {name!r}")
    return rows[0]

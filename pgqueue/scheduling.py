"""Schedules in code and by hand: declare, store, pause, run, fill in, look. PgQueue has it all.

Each action writes its line of audit_log in its own transaction; `by` says who acts (without: the
operating system's user, from code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack

from pgqueue.db.run import Steps, in_transaction
from pgqueue.engine.notify import SCHEDULES, ring
from pgqueue.engine.operate import Operator, acting
from pgqueue.errors import ConfigError
from pgqueue.job import Json
from pgqueue.schedule import backfill, deeds, store
from pgqueue.schedule.doctor import Finding, examine
from pgqueue.schedule.fill import Mode, Overlap
from pgqueue.schedule.store import Schedule, Stored
from pgqueue.schedule.tick import Ticked, tick
from pgqueue.schedule.windows import CatchUp, Window
from pgqueue.settings import Settings
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.task import Task

T = TypeVar("T")

REASON_LIMIT = 1000
"""Characters of the reason for a pause."""

MOST = 10_000
"""Fires or windows that one call lists."""

_WORDS = {"catch_up": CatchUp, "overlap": Overlap, "window_mode": Mode}
_EDITABLE = (
    "cron", "timezone", "task", "payload", "queue", "priority", "tags", "tenant", "timeout",
    "catch_up", "catch_up_max_age", "catch_up_max_count", "overlap", "delay", "jitter", "starts_at",
    "ends_at", "window_mode", "after", "declared",
)  # fmt: skip


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
    starts_at: datetime | None
    ends_at: datetime | None
    window_mode: str
    after: str | None


class Scheduling(ABC):
    """The schedules' part of PgQueue."""

    sql: Mapping[str, str]
    settings: Settings
    tasks: Registry
    schedules: dict[str, Schedule]

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    # -- declare and store -------------------------------------------------------

    def schedule(
        self, name: str, *, cron: str, task: Task[Any] | str, **policies: Unpack[Policies]
    ) -> Schedule:
        """Declare a schedule in code: it is stored, or brought up to date, when a worker starts.

        Raises CronInvalid, ZoneInvalid, TaskUnknown, PayloadInvalid or ConfigError at once.
        """
        schedule = self._schedule(name=name, cron=cron, task=task, **policies)
        self.schedules[name] = replace(schedule, declared=True)
        return schedule

    def put_schedule(self, name: str, **definition: Any) -> Stored:
        """Store a schedule now; takes what `schedule` takes, `connection`, and `by`: who acts."""
        connection = definition.pop("connection", None)
        operator = acting(definition.pop("by", None))
        schedule = self._schedule(name=name, **definition)
        stored = self._run(store.put_schedule(self.sql, schedule, operator), connection)
        if connection is None:
            self._tell_schedulers()
        return stored

    def edit_schedule(self, name: str, *, by: Operator | None = None, **changes: Any) -> Stored:
        """Change some of what a stored schedule says, and leave the rest.

        A changed time fires first at its next instant from now on. Raises ScheduleNotFound.
        """
        row = self._run(store.get_schedule(self.sql, name), None)
        definition = {column: row[column] for column in _EDITABLE}
        return self.put_schedule(name, **{**definition, **changes}, by=by)

    def remove_schedule(self, name: str, *, by: Operator | None = None) -> None:
        """Remove a schedule and its windows; jobs go on, but for those that wait for their turn.

        One that code declares comes back when a worker starts. Raises ScheduleNotFound.
        """
        self._run(in_transaction(deeds.remove_schedule(self.sql, name, acting(by))), None)

    # -- stop and go ---------------------------------------------------------------

    def pause_schedule(
        self, name: str, *, reason: str | None = None, by: Operator | None = None
    ) -> bool:
        """Let a schedule fire no more; False when it was paused already."""
        if reason is not None and ("\x00" in reason or len(reason) > REASON_LIMIT):
            raise ConfigError(f"the reason is not valid: {REASON_LIMIT} characters, no NUL")
        return self._run(deeds.pause_schedule(self.sql, name, acting(by), reason), None)

    def resume_schedule(self, name: str, *, by: Operator | None = None) -> bool:
        """Let it fire again, its catch-up policy saying what it makes up for; False if it did."""
        resumed = self._run(deeds.resume_schedule(self.sql, name, acting(by)), None)
        self._tell_schedulers()
        return resumed

    def run_schedule(self, name: str, *, by: Operator | None = None) -> int:
        """Run it now, from its last fire until now; returns the job's id. Raises WindowBusy."""
        steps = deeds.run_now(self.sql, name, acting(by))
        return self._started(self._run(in_transaction(steps), None))

    def rerun_window(self, window_id: int, *, by: Operator | None = None) -> int:
        """Run a window again, its new outcome in place of the old; returns the job's id.

        Raises ScheduleNotFound, and WindowBusy while its last job waits or runs.
        """
        steps = deeds.rerun_window(self.sql, window_id, acting(by))
        return self._started(self._run(in_transaction(steps), None))

    # -- backfill --------------------------------------------------------------------

    def plan_backfill(self, name: str, start: datetime, end: datetime) -> list[Window]:
        """The windows in [start, end) that were never run, oldest first; changes nothing."""
        steps = backfill.plan_backfill(self.sql, name, start, end, backfill.PLAN_LIMIT)
        return self._run(steps, None)

    def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *,
        concurrency: int = 1,
        by: Operator | None = None,
    ) -> int:
        """Run the windows in [start, end) that were never run, so many at a time.

        Returns the id of the backfill; the schedulers insert its windows from now on. Asked for
        again, one that is not finished goes on. Raises ScheduleNotFound, ConfigError.
        """
        steps = backfill.add_backfill(
            self.sql, name, start, end, concurrency=concurrency, operator=acting(by)
        )
        backfill_id = self._run(in_transaction(steps), None)
        self._tell_schedulers()
        return backfill_id

    def cancel_backfill(self, backfill_id: int, *, by: Operator | None = None) -> bool:
        """Stop a backfill: what runs goes on to its end; False when it had ended."""
        steps = backfill.cancel_backfill(self.sql, backfill_id, acting(by))
        return self._run(in_transaction(steps), None)

    def list_backfills(self, name: str | None = None) -> list[dict[str, Any]]:
        """The rows of the view backfill_status, newest first."""
        return self._run(deeds.list_backfills(self.sql, name), None)

    # -- see ---------------------------------------------------------------------------

    def list_schedules(self) -> list[dict[str, Any]]:
        """All stored schedules, each a mapping with the SQL column names."""
        return self._run(store.list_schedules(self.sql), None)

    def next_fires(
        self, name: str, count: int = 10, *, after: datetime | None = None
    ) -> tuple[list[datetime], str]:
        """The coming fires of a schedule, in UTC, and its time zone."""
        if not 1 <= count <= MOST:
            raise ConfigError(f"count {count!r} is not valid: 1 to {MOST}")
        steps = deeds.next_fires(self.sql, name, count, after)
        return self._run(steps, None)

    def list_windows(
        self, schedule: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Windows, newest first, as rows of the view window_status."""
        if not 1 <= limit <= MOST:
            raise ConfigError(f"limit {limit!r} is not valid: 1 to {MOST}")
        return self._run(deeds.list_windows(self.sql, schedule, state, limit), None)

    def schedule_problems(self) -> list[dict[str, Any]]:
        """Schedules that are late, fail or are stuck: rows of the view schedule_health."""
        return self._run(deeds.list_problems(self.sql), None)

    def examine(self) -> list[Finding]:
        """What `pgq doctor` finds: one finding for each check, or more."""
        return self._run(examine(self.sql), None)

    def tick(self) -> Ticked:
        """One pass of the scheduler: insert the windows that are due, and their jobs."""
        ticked = self._run(tick(self.sql), None)
        if ticked.jobs or ticked.released:
            self._run(ring(self.sql, self.settings.channel, ""), None)
        return ticked

    # -- what they share -----------------------------------------------------------------

    def _started(self, job_id: int) -> int:
        self._run(ring(self.sql, self.settings.channel, ""), None)
        return job_id

    def _tell_schedulers(self) -> None:
        self._run(ring(self.sql, self.settings.channel, SCHEDULES), None)

    def _schedule(
        self, *, task: Task[Any] | str, payload: Mapping[str, Json] | None = None, **rest: Any
    ) -> Schedule:
        unknown = sorted(set(rest) - {"name", *_EDITABLE})
        if unknown:
            raise ConfigError(
                f"unknown option {unknown[0]!r}: a schedule has {', '.join(_EDITABLE[:-1])}"
            )
        for option, words in _WORDS.items():
            if option in rest and rest[option] not in set(words):
                known = ", ".join(words)
                raise ConfigError(f"{option} {rest[option]!r} is not valid: {known}")
        policies = {key: words(rest[key]) for key, words in _WORDS.items() if key in rest}
        return Schedule(
            task=self.tasks.get(task) if isinstance(task, str) else task,
            payload=payload or {},
            **{**rest, **policies},
        )

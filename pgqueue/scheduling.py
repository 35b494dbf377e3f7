"""Schedules in code and by hand: declare, store, pause, run, fill in, look. PgQueue has it all.

Each action writes its line of audit_log in its own transaction; `by` says who acts (without: the
operating system's user, from code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, Unpack

from pgqueue.db.borrowed import aborrowed, borrowed, commits_itself
from pgqueue.db.run import Steps, in_transaction
from pgqueue.engine.notify import SCHEDULES, notify, ring
from pgqueue.engine.operate import Operator, acting, checked_reason
from pgqueue.errors import ConfigError
from pgqueue.job import Json
from pgqueue.schedule import backfill, deeds, store
from pgqueue.schedule.cron import Moment, instant_of
from pgqueue.schedule.doctor import Finding, examine
from pgqueue.schedule.fill import Overlap
from pgqueue.schedule.store import WINDOW_MODES, Policies, Schedule, Stored, checked_name
from pgqueue.schedule.tick import Ticked, tick
from pgqueue.schedule.windows import CatchUp, Window
from pgqueue.settings import Settings
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.task import Task

T = TypeVar("T")

MOST = 10_000
"""Fires or windows that one call lists."""

LARGEST_ID = 2**63 - 1

_WORDS: dict[str, tuple[StrEnum, ...]] = {
    "catch_up": tuple(CatchUp),
    "overlap": tuple(Overlap),
    "window_mode": WINDOW_MODES,
}
_EDITABLE = (
    "cron", "timezone", "task", "payload", "queue", "priority", "tags", "tenant", "timeout",
    "catch_up", "catch_up_max_age", "catch_up_max_count", "overlap", "delay", "jitter", "starts_at",
    "ends_at", "window_mode", "after", "declared",
)  # fmt: skip


class Scheduling(ABC):
    """The schedules' part of PgQueue."""

    sql: Mapping[str, str]
    settings: Settings
    tasks: Registry
    schedules: dict[str, Schedule]

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    @abstractmethod
    async def _arun(self, steps: Steps[T], connection: Any) -> T: ...

    # -- declare and store -------------------------------------------------------

    def schedule(
        self, name: str, *, cron: str, task: Task[Any] | str, **policies: Unpack[Policies]
    ) -> Schedule:
        """Declare a schedule in code: it is stored, or brought up to date, when a worker starts.

        Raises CronInvalid, ZoneInvalid, TaskUnknown, PayloadInvalid or ConfigError at once.
        """
        schedule = self._schedule(name=name, cron=cron, task=task, **policies)
        declared = replace(schedule, declared=True)
        if self.schedules.setdefault(name, declared) != declared:
            raise ConfigError(f"two schedules are named {name!r}: give one of them another name")
        return schedule

    def put_schedule(
        self, name: str, *, connection: Any = None, by: Operator | None = None, **definition: Any
    ) -> Stored:
        """Store a schedule now, or change the one of that name; takes what `schedule` takes.

        With `connection` it is part of your transaction. `by`: who acts.
        """
        operator = acting(by)
        given = None if connection is None else borrowed(connection)
        steps = store.put_schedule(self.sql, self._schedule(name=name, **definition), operator)
        return self._run(self._told_by(given, steps), given)

    async def aput_schedule(
        self, name: str, *, connection: Any = None, by: Operator | None = None, **definition: Any
    ) -> Stored:
        """`put_schedule` for async code."""
        operator = acting(by)
        given = None if connection is None else await aborrowed(connection)
        steps = store.put_schedule(self.sql, self._schedule(name=name, **definition), operator)
        return await self._arun(self._told_by(given, steps), given)

    def edit_schedule(self, name: str, *, by: Operator | None = None, **changes: Any) -> Stored:
        """Change some of what a stored schedule says, and leave the rest.

        None takes an option back: its default holds, or what its task says. A changed time fires
        first at its next instant from now on. Raises ScheduleNotFound.
        """
        return self._run(self._edit_schedule(name, by, changes), None)

    async def aedit_schedule(
        self, name: str, *, by: Operator | None = None, **changes: Any
    ) -> Stored:
        """`edit_schedule` for async code."""
        return await self._arun(self._edit_schedule(name, by, changes), None)

    def remove_schedule(self, name: str, *, by: Operator | None = None) -> None:
        """Remove a schedule and its windows; jobs go on, but for those that wait for their turn.

        One that code declares comes back when a worker starts. Raises ScheduleNotFound, and
        ConfigError where another one runs after it.
        """
        self._run(self._remove_schedule(name, by), None)

    async def aremove_schedule(self, name: str, *, by: Operator | None = None) -> None:
        """`remove_schedule` for async code."""
        await self._arun(self._remove_schedule(name, by), None)

    # -- stop and go ---------------------------------------------------------------

    def pause_schedule(
        self, name: str, *, reason: str | None = None, by: Operator | None = None
    ) -> bool:
        """Let a schedule fire no more; False when it was paused already."""
        return self._run(self._pause_schedule(name, reason, by), None)

    async def apause_schedule(
        self, name: str, *, reason: str | None = None, by: Operator | None = None
    ) -> bool:
        """`pause_schedule` for async code."""
        return await self._arun(self._pause_schedule(name, reason, by), None)

    def resume_schedule(self, name: str, *, by: Operator | None = None) -> bool:
        """Let it fire again, its catch-up policy saying what it makes up for; False if it did."""
        return self._run(self._resume_schedule(name, by), None)

    async def aresume_schedule(self, name: str, *, by: Operator | None = None) -> bool:
        """`resume_schedule` for async code."""
        return await self._arun(self._resume_schedule(name, by), None)

    def run_schedule(self, name: str, *, by: Operator | None = None) -> int:
        """Run it now, from its last fire until now; returns the job's id. Raises WindowBusy."""
        return self._run(self._run_schedule(name, by), None)

    async def arun_schedule(self, name: str, *, by: Operator | None = None) -> int:
        """`run_schedule` for async code."""
        return await self._arun(self._run_schedule(name, by), None)

    def rerun_window(self, window_id: int, *, by: Operator | None = None) -> int:
        """Run a window again, its new outcome in place of the old; returns the job's id.

        Raises ScheduleNotFound, and WindowBusy while its last job waits or runs.
        """
        return self._run(self._rerun_window(window_id, by), None)

    async def arerun_window(self, window_id: int, *, by: Operator | None = None) -> int:
        """`rerun_window` for async code."""
        return await self._arun(self._rerun_window(window_id, by), None)

    # -- backfill --------------------------------------------------------------------

    def plan_backfill(self, name: str, start: Moment, end: Moment) -> list[Window]:
        """The windows in [start, end) that were never run, oldest first; changes nothing.

        A date is its first instant in the schedule's time zone. Raises ScheduleNotFound, and
        ConfigError also for a range of more than 100,000 windows.
        """
        return self._run(backfill.plan_backfill(self.sql, checked_name(name), start, end), None)

    async def aplan_backfill(self, name: str, start: Moment, end: Moment) -> list[Window]:
        """`plan_backfill` for async code."""
        steps = backfill.plan_backfill(self.sql, checked_name(name), start, end)
        return await self._arun(steps, None)

    def backfill(
        self,
        name: str,
        start: Moment,
        end: Moment,
        *,
        concurrency: int = 1,
        by: Operator | None = None,
    ) -> int:
        """Run the windows in [start, end) that were never run, so many at a time.

        Returns the id of the backfill; the schedulers insert its windows from now on. Asked for
        again, one that is not finished goes on. Raises ScheduleNotFound, ConfigError.
        """
        return self._run(self._backfill(name, start, end, concurrency, by), None)

    async def abackfill(
        self,
        name: str,
        start: Moment,
        end: Moment,
        *,
        concurrency: int = 1,
        by: Operator | None = None,
    ) -> int:
        """`backfill` for async code."""
        return await self._arun(self._backfill(name, start, end, concurrency, by), None)

    def cancel_backfill(self, backfill_id: int, *, by: Operator | None = None) -> bool:
        """Stop a backfill: what runs goes on to its end; False when it had ended.

        Raises ScheduleNotFound.
        """
        return self._run(self._cancel_backfill(backfill_id, by), None)

    async def acancel_backfill(self, backfill_id: int, *, by: Operator | None = None) -> bool:
        """`cancel_backfill` for async code."""
        return await self._arun(self._cancel_backfill(backfill_id, by), None)

    def list_backfills(self, name: str | None = None) -> list[dict[str, Any]]:
        """The rows of the view backfill_status, newest first; raises ScheduleNotFound."""
        return self._run(deeds.list_backfills(self.sql, name), None)

    async def alist_backfills(self, name: str | None = None) -> list[dict[str, Any]]:
        """`list_backfills` for async code."""
        return await self._arun(deeds.list_backfills(self.sql, name), None)

    # -- see ---------------------------------------------------------------------------

    def list_schedules(self) -> list[dict[str, Any]]:
        """All stored schedules, each a mapping with the SQL column names."""
        return self._run(store.list_schedules(self.sql), None)

    async def alist_schedules(self) -> list[dict[str, Any]]:
        """`list_schedules` for async code."""
        return await self._arun(store.list_schedules(self.sql), None)

    def next_fires(
        self, name: str, count: int = 10, *, after: Moment | None = None
    ) -> tuple[list[datetime], str]:
        """The coming fires of a schedule, in UTC, and its time zone; fewer where it ends."""
        return self._run(self._next_fires(name, count, after), None)

    async def anext_fires(
        self, name: str, count: int = 10, *, after: Moment | None = None
    ) -> tuple[list[datetime], str]:
        """`next_fires` for async code."""
        return await self._arun(self._next_fires(name, count, after), None)

    def list_windows(
        self, schedule: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Windows, newest first, as rows of the view window_status."""
        return self._run(self._list_windows(schedule, state, limit), None)

    async def alist_windows(
        self, schedule: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """`list_windows` for async code."""
        return await self._arun(self._list_windows(schedule, state, limit), None)

    def schedule_problems(self) -> list[dict[str, Any]]:
        """Schedules that are late, fail or are stuck: rows of the view schedule_health."""
        return self._run(deeds.list_problems(self.sql), None)

    async def aschedule_problems(self) -> list[dict[str, Any]]:
        """`schedule_problems` for async code."""
        return await self._arun(deeds.list_problems(self.sql), None)

    def examine(self) -> list[Finding]:
        """What `pgq doctor` finds: one finding for each check, or more."""
        return self._run(examine(self.sql), None)

    async def aexamine(self) -> list[Finding]:
        """`examine` for async code."""
        return await self._arun(examine(self.sql), None)

    def tick(self) -> Ticked:
        """One pass of the scheduler: insert the windows that are due, and their jobs."""
        return self._run(self._tick(), None)

    async def atick(self) -> Ticked:
        """`tick` for async code."""
        return await self._arun(self._tick(), None)

    # -- the steps both ways share ---------------------------------------------------------

    def _told(self, steps: Steps[T], hint: str = SCHEDULES) -> Steps[T]:
        """`steps` in a transaction, then a hint: to the schedulers, or '' that there is work."""
        result = yield from in_transaction(steps)
        yield from ring(self.sql, self.settings.channel, hint)
        return result

    def _told_by(self, given: Any, steps: Steps[T]) -> Steps[T]:
        """`_told`, or in a transaction of the caller's, which takes the hint along."""
        if given is None or commits_itself(given):
            return (yield from self._told(steps))
        result = yield from steps
        if (channel := self.settings.channel) is not None:
            yield notify(self.sql, channel, SCHEDULES)
        return result

    def _edit_schedule(
        self, name: str, by: Operator | None, changes: Mapping[str, Any]
    ) -> Steps[Stored]:
        for option in ("cron", "task"):
            if option in changes and changes[option] is None:
                raise ConfigError(f"{option} cannot be taken back: give another one")

        def edited(row: Mapping[str, Any]) -> Schedule:
            said = {**{column: row[column] for column in _EDITABLE}, **changes}
            # Without a value an option is what it is where nothing is said.
            kept = {option: value for option, value in said.items() if value is not None}
            return self._schedule(name=name, **kept)

        return self._told(store.edit_schedule(self.sql, checked_name(name), edited, acting(by)))

    def _remove_schedule(self, name: str, by: Operator | None) -> Steps[None]:
        return in_transaction(deeds.remove_schedule(self.sql, checked_name(name), acting(by)))

    def _pause_schedule(self, name: str, reason: str | None, by: Operator | None) -> Steps[bool]:
        why = checked_reason(reason)
        return deeds.pause_schedule(self.sql, checked_name(name), acting(by), why)

    def _resume_schedule(self, name: str, by: Operator | None) -> Steps[bool]:
        return self._told(deeds.resume_schedule(self.sql, checked_name(name), acting(by)))

    def _run_schedule(self, name: str, by: Operator | None) -> Steps[int]:
        return self._told(deeds.run_now(self.sql, checked_name(name), acting(by)), hint="")

    def _rerun_window(self, window_id: int, by: Operator | None) -> Steps[int]:
        known = _checked_number("window id", window_id, LARGEST_ID)
        return self._told(deeds.rerun_window(self.sql, known, acting(by)), hint="")

    def _backfill(
        self, name: str, start: Moment, end: Moment, concurrency: int, by: Operator | None
    ) -> Steps[int]:
        steps = backfill.add_backfill(
            self.sql, checked_name(name), start, end, concurrency=concurrency, operator=acting(by)
        )
        return self._told(steps)

    def _cancel_backfill(self, backfill_id: int, by: Operator | None) -> Steps[bool]:
        known = _checked_number("backfill id", backfill_id, LARGEST_ID)
        return in_transaction(backfill.cancel_backfill(self.sql, known, acting(by)))

    def _next_fires(
        self, name: str, count: int, after: Moment | None
    ) -> Steps[tuple[list[datetime], str]]:
        most = _checked_number("count", count, MOST)
        return deeds.next_fires(self.sql, checked_name(name), most, after)

    def _list_windows(
        self, schedule: str | None, state: str | None, limit: int
    ) -> Steps[list[dict[str, Any]]]:
        most = _checked_number("limit", limit, MOST)
        return deeds.list_windows(self.sql, schedule, state, most)

    def _tick(self) -> Steps[Ticked]:
        ticked = yield from tick(self.sql)
        if ticked.jobs or ticked.released:
            yield from ring(self.sql, self.settings.channel, "")
        return ticked

    def _schedule(
        self, *, task: Task[Any] | str, payload: Mapping[str, Json] | None = None, **rest: Any
    ) -> Schedule:
        unknown = sorted(set(rest) - {"name", *_EDITABLE})
        if unknown:
            raise ConfigError(
                f"unknown option {unknown[0]!r}: a schedule has {', '.join(_EDITABLE[:-1])}"
            )
        for option, words in _WORDS.items():
            if option in rest and rest[option] not in words:
                known = ", ".join(words)
                raise ConfigError(f"{option} {rest[option]!r} is not valid: {known}")
        policies: dict[str, Any] = {
            key: type(words[0])(rest[key]) for key, words in _WORDS.items() if key in rest
        }
        for option in ("starts_at", "ends_at"):
            if rest.get(option) is not None:
                policies[option] = instant_of(option, rest[option], rest.get("timezone", "UTC"))
        return Schedule(
            task=self.tasks.get(task) if isinstance(task, str) else task,
            payload={} if payload is None else payload,
            **{**rest, **policies},
        )


def _checked_number(what: str, number: int, most: int) -> int:
    if type(number) is not int or not 1 <= number <= most:
        raise ConfigError(f"{what} {number!r} is not valid: 1 to {most}")
    return number

"""Limits at run time and back-pressure: what is held and waited for, set and checked. PgQueue has
it all; each change writes its line of audit_log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

from pgqueue.db.run import Steps
from pgqueue.engine import limits as verbs
from pgqueue.engine.limits import Caps, Exceeded
from pgqueue.engine.operate import Operator, acting
from pgqueue.errors import ConfigError
from pgqueue.tasks.limits import check_caps, check_name
from pgqueue.tasks.names import checked_queue
from pgqueue.tasks.values import checked_span, seconds_of

T = TypeVar("T")

LARGEST = 2**31 - 1
COUNTED = 1_000_000
"""Jobs of a backlog that are counted; from there on it is "at least"."""


class Limiting(ABC):
    """The part of PgQueue that limits."""

    sql: Mapping[str, str]

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    @abstractmethod
    async def _arun(self, steps: Steps[T], connection: Any) -> T: ...

    def limits(self, name: str | None = None, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Limits that are set, held or waited for, the longest lines first, as mappings.

        `used` jobs hold a slot of `running`, `free` slots are left; `started` began in the last
        `per` seconds, of at most `starts`; `waiting` stand in its line, a job in one at a time.
        Those in an order wait for the job `held_by`: it runs, waits for something else, or has
        failed for good.
        """
        return self._run(verbs.list_limits(self.sql, name, limit), None)

    async def alimits(self, name: str | None = None, *, limit: int = 1000) -> list[dict[str, Any]]:
        """`limits` for async code."""
        return await self._arun(verbs.list_limits(self.sql, name, limit), None)

    def set_limit(
        self,
        name: str,
        *,
        running: int | None = None,
        starts: int | None = None,
        per: float | timedelta | None = None,
        lasting: float | timedelta | None = None,
        by: Operator | None = None,
    ) -> bool:
        """Let other figures hold for a limit than the code declares, `lasting` so long or for good.

        What is not given stays as declared. "queue:NAME" limits all jobs of a queue, with no code.
        Who is already in stays in: a lowered limit lets in again when enough have ended. False
        where no code declares a limit of this name: a name mistyped, or one of jobs to come. Raises
        ConfigError for what cannot be.
        """
        return self._run(self._set_limit(name, running, starts, per, lasting, by), None)

    async def aset_limit(
        self,
        name: str,
        *,
        running: int | None = None,
        starts: int | None = None,
        per: float | timedelta | None = None,
        lasting: float | timedelta | None = None,
        by: Operator | None = None,
    ) -> bool:
        """`set_limit` for async code."""
        return await self._arun(self._set_limit(name, running, starts, per, lasting, by), None)

    def reset_limit(self, name: str, *, by: Operator | None = None) -> bool:
        """Take back what `set_limit` has set; False when there was nothing."""
        return self._run(
            verbs.set_limit(self.sql, check_name("limit", name), None, acting(by)), None
        )

    async def areset_limit(self, name: str, *, by: Operator | None = None) -> bool:
        """`reset_limit` for async code."""
        steps = verbs.set_limit(self.sql, check_name("limit", name), None, acting(by))
        return await self._arun(steps, None)

    def check_limits(self) -> list[Exceeded]:
        """Which limits are exceeded, counted from the rows; none, if all is well.

        Concurrency as it is now; rates over the starts that are kept, ten minutes at least.
        """
        return self._run(verbs.check_limits(self.sql), None)

    async def acheck_limits(self) -> list[Exceeded]:
        """`check_limits` for async code."""
        return await self._arun(verbs.check_limits(self.sql), None)

    def backlog(self, queue: str) -> int:
        """How many jobs of a queue wait: queued, scheduled or blocked.

        Counts a million of each and no further.
        """
        return self._run(verbs.backlog(self.sql, checked_queue(queue), COUNTED), None)

    async def abacklog(self, queue: str) -> int:
        """`backlog` for async code."""
        return await self._arun(verbs.backlog(self.sql, checked_queue(queue), COUNTED), None)

    def set_max_queued(
        self, queue: str, max_queued: int | None, *, by: Operator | None = None
    ) -> None:
        """Let at most so many jobs of a queue wait: more are refused with TooManyJobs.

        None takes the bound away. Approximate: a producer may be a second behind.
        """
        self._run(self._set_max_queued(queue, max_queued, by), None)

    async def aset_max_queued(
        self, queue: str, max_queued: int | None, *, by: Operator | None = None
    ) -> None:
        """`set_max_queued` for async code."""
        await self._arun(self._set_max_queued(queue, max_queued, by), None)

    def _set_limit(  # noqa: PLR0917 - what was asked for, in its order
        self,
        name: str,
        running: int | None,
        starts: int | None,
        per: float | timedelta | None,
        lasting: float | timedelta | None,
        by: Operator | None,
    ) -> Steps[bool]:
        check_name("limit", name)
        has_declared_period = starts is not None and per is None
        check_caps(name, running, starts, 1.0 if has_declared_period else per)
        if name.startswith(verbs.QUEUE) and "{" not in name:
            checked_queue(name.removeprefix(verbs.QUEUE))
        if lasting is not None:
            checked_span("lasting", lasting)
        period = None if per is None else seconds_of(per)
        seconds = None if lasting is None else seconds_of(lasting)
        return verbs.set_limit(self.sql, name, Caps(running, starts, period, seconds), acting(by))

    def _set_max_queued(
        self, queue: str, max_queued: int | None, by: Operator | None
    ) -> Steps[None]:
        checked_queue(queue)
        if max_queued is not None and not (type(max_queued) is int and 0 <= max_queued <= LARGEST):
            raise ConfigError(
                f"max_queued {max_queued!r} of queue {queue!r} is not valid: a whole number from 0"
            )
        return verbs.set_max_queued(self.sql, queue, max_queued, acting(by))

"""How long finished jobs are kept, and letting them go now. PgQueue has it all."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

from pgqueue.db.pools import Pools, is_direct
from pgqueue.db.run import Steps, run
from pgqueue.engine.keeping import UNCHANGED, As, Change, Policy, find_policies, set_retention
from pgqueue.engine.operate import Operator, acting, this_user
from pgqueue.engine.prune import prune
from pgqueue.engine.retention import Pruned, plan_retention

T = TypeVar("T")


class Maintenance(ABC):
    """The part of PgQueue that lets finished jobs go."""

    sql: Mapping[str, str]
    pools: Pools

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    @abstractmethod
    async def _arun(self, steps: Steps[T], connection: Any) -> T: ...

    def prune(self, *, by: Operator | None = None) -> Pruned:
        """One pass of retention now: partitions are made ahead, old ones dropped.

        Raises ChoreLost while a worker is at it.
        """
        operator = acting(by)
        with self.pools.connection() as connection:
            direct = is_direct(connection)
            steps = prune(self.sql, operator, concurrently=direct, clock=time.monotonic)
            return run(connection, steps)

    def plan_prune(self, *changes: Change) -> tuple[str, ...]:
        """The partitions that `prune` would drop, oldest first; with `changes`, if they were made.

        Changes nothing.
        """
        with self.pools.connection() as connection, connection.transaction(force_rollback=True):
            for change in changes:
                run(connection, set_retention(self.sql, change, this_user()))
            return tuple(day.partition for day in run(connection, plan_retention(self.sql)))

    def set_retention(
        self,
        state_group: str,
        *,
        keep: timedelta | As | None = UNCHANGED,
        keep_count: int | As | None = UNCHANGED,
        by: Operator | None = None,
    ) -> Policy:
        """Change how long finished jobs are kept; returns what holds now.

        `state_group` is `completed` or `failed`, which is cancelled, too. `keep` None is for ever.
        Whole oldest days go while the younger ones hold `keep_count` jobs; None is any number. What
        is not given stays as it is. Workers apply it within 10 minutes.
        """
        change = Change(state_group, keep, keep_count)
        return self._run(set_retention(self.sql, change, acting(by)), None)

    async def aset_retention(
        self,
        state_group: str,
        *,
        keep: timedelta | As | None = UNCHANGED,
        keep_count: int | As | None = UNCHANGED,
        by: Operator | None = None,
    ) -> Policy:
        """`set_retention` for async code."""
        change = Change(state_group, keep, keep_count)
        return await self._arun(set_retention(self.sql, change, acting(by)), None)

    def list_retention(self) -> list[Policy]:
        """How long completed and failed jobs are kept."""
        return self._run(find_policies(self.sql), None)

    async def alist_retention(self) -> list[Policy]:
        """`list_retention` for async code."""
        return await self._arun(find_policies(self.sql), None)

"""A worker's regular line: what it did since the last one, and what waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgqueue.db.run import Steps
from pgqueue.engine.statistics import find_statistics, find_unknown_tasks
from pgqueue.events import TasksUnknown, WorkerStats, emit
from pgqueue.worker.link import Link


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker has done since it started, and how many handlers run now."""

    completed: int
    failed: int
    handed_back: int
    active: int


class StatsLine:
    """Emits WorkerStats each time `tell` is awaited."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        worker_id: Callable[[], int],
        done: Callable[[], Done],
        queues: Sequence[str],
    ) -> None:
        self._sql = sql
        self._queues = queues
        self._link = link
        self._worker_id = worker_id
        self._done = done
        self._told = Done(0, 0, 0, 0)
        self._told_at = time.monotonic()

    async def tell(self) -> None:
        waiting = await self._link.execute(find_statistics(self._sql))
        unknown = await self._link.execute(find_unknown_tasks(self._sql, self._queues))
        before, before_at = self._told, self._told_at
        done = self._told = self._done()
        self._told_at = time.monotonic()
        emit(
            WorkerStats(
                worker_id=self._worker_id(),
                seconds=round(self._told_at - before_at, 1),
                completed=done.completed - before.completed,
                failed=done.failed - before.failed,
                handed_back=done.handed_back - before.handed_back,
                active=done.active,
                queued=waiting.queued,
                queued_is_exact=waiting.queued_is_exact,
                schedules=waiting.schedules,
                next_runs=tuple(waiting.next_runs),
                unknown_tasks=unknown,
            )
        )


def tell_unknown_tasks(
    sql: Mapping[str, str], worker_id: int, queues: Sequence[str]
) -> Steps[None]:
    """Emits TasksUnknown if there are any in these queues; none are all."""
    if jobs := (yield from find_unknown_tasks(sql, queues)):
        emit(TasksUnknown(worker_id, jobs))

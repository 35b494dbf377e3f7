"""The way of a job through a worker: claimed by the loop, run in a slot, written by the writer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import random

from pgqueue.db.pools import Pools
from pgqueue.engine.claim import STEADY, STEADY_NOT_DURABLE
from pgqueue.settings import Settings
from pgqueue.tasks.registry import Registry
from pgqueue.worker.batches import Batches
from pgqueue.worker.endings import Endings
from pgqueue.worker.gathering import Gatherer
from pgqueue.worker.hand import Hand
from pgqueue.worker.lanes import LaneBook
from pgqueue.worker.link import Link
from pgqueue.worker.listener import Listener
from pgqueue.worker.loop import ClaimLoop
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.pace import Pace
from pgqueue.worker.processes import Processes
from pgqueue.worker.rollout import Rollout
from pgqueue.worker.runner import Runner
from pgqueue.worker.slots import Slots
from pgqueue.worker.writer import Writer


class Conveyor:
    """Puts these parts together; `hand` is what they share. `hurry` asks for a duty at once."""

    def __init__(
        self,
        *,
        tasks: Registry,
        settings: Settings,
        pools: Pools,
        sql: Mapping[str, str],
        conninfo: Callable[[], str],
        redact: Callable[[str], str],
        queues: Sequence[str],
        concurrency: int,
        worker_id: Callable[[], int],
        listener: Listener,
        hurry: Callable[[str], None],
        lowest: Callable[[], int],
        on_blocked: Callable[[float], None],
    ) -> None:
        self.hand, notepad, pace = Hand(), Notepad(), Pace(concurrency, time.monotonic())
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="pgqueue-job")
        claiming = Link("claims", conninfo, STEADY_NOT_DURABLE, listener)
        writing = Link("writer", conninfo, STEADY)
        batching = Link("batches", conninfo)
        self._links = (claiming, writing, batching)
        self.processes = Processes(conninfo, settings.schema_name, notepad)
        self.runner = Runner(
            tasks=tasks,
            pools=pools,
            sql=sql,
            threads=self._threads,
            notepad=notepad,
            processes=self.processes,
            endings=Endings(redact, Rollout(sql, pools).is_on),
            on_no_partition=lambda: hurry("partitions"),
            on_wait=lambda: hurry("events"),
        )
        batches = self._new_batches(tasks, sql, batching, worker_id, lowest)
        self.slots = Slots(self.runner, self.hand, pace, concurrency, batches)
        self.claims = ClaimLoop(
            sql=sql,
            link=claiming,
            runner=self.runner,
            slots=self.slots,
            hand=self.hand,
            pace=pace,
            lanes=LaneBook(queues, random),
            tasks=tasks.names(),
            worker_id=worker_id,
            concurrency=concurrency,
            poll_interval=settings.poll_interval,
            is_listening=lambda: listener.is_listening,
            on_lost_reply=lambda: hurry("strays"),
            queues=queues,
            lowest=lowest,
            on_blocked=on_blocked,
        )
        self.writer = self._new_writer(sql, writing, pace, notepad, worker_id)

    def _new_batches(
        self,
        tasks: Registry,
        sql: Mapping[str, str],
        link: Link,
        worker_id: Callable[[], int],
        lowest: Callable[[], int],
    ) -> Batches:
        gatherer = Gatherer(
            sql=sql,
            link=link,
            hand=self.hand,
            worker_id=worker_id,
            lowest=lowest,
            # Made later, both of them.
            is_claiming=lambda: self.claims.is_claiming,
            on_lost_reply=lambda: self.claims.note_lost_reply(),  # noqa: PLW0108
            on_waiting=lambda: self.slots.fill(),  # noqa: PLW0108
        )
        return Batches(registry=tasks, gatherer=gatherer, runner=self.runner, hand=self.hand)

    def _new_writer(
        self,
        sql: Mapping[str, str],
        link: Link,
        pace: Pace,
        notepad: Notepad,
        worker_id: Callable[[], int],
    ) -> Writer:
        return Writer(
            sql=sql,
            link=link,
            hand=self.hand,
            slots=self.slots,
            pace=pace,
            notepad=notepad,
            worker_id=worker_id,
        )

    async def close(self) -> None:
        """Leave threads behind, end child processes and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.processes.close()
        for link in self._links:
            await link.close()

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
from pgqueue.worker.endings import Endings
from pgqueue.worker.hand import Hand
from pgqueue.worker.lanes import LaneBook
from pgqueue.worker.link import Link
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
        is_listening: Callable[[], bool],
        hurry: Callable[[str], None],
    ) -> None:
        self.hand, notepad, pace = Hand(), Notepad(), Pace(concurrency, time.monotonic())
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="pgqueue-job")
        self._claiming = Link("claims", conninfo, STEADY_NOT_DURABLE)
        self._writing = Link("writer", conninfo, STEADY)
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
        )
        self.slots = Slots(self.runner, self.hand, pace, concurrency)
        self.claims = ClaimLoop(
            sql=sql,
            link=self._claiming,
            runner=self.runner,
            slots=self.slots,
            hand=self.hand,
            pace=pace,
            lanes=LaneBook(queues, random),
            tasks=tasks.names(),
            worker_id=worker_id,
            concurrency=concurrency,
            poll_interval=settings.poll_interval,
            is_listening=is_listening,
            on_lost_reply=lambda: hurry("strays"),
        )
        self.writer = Writer(
            sql=sql,
            link=self._writing,
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
        await self._claiming.close()
        await self._writing.close()

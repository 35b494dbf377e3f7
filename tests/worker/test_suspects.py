"""What a dead worker held is run one at a time, and without moving it to and fro."""

from __future__ import annotations

import asyncio

from pgqueue import PgQueue
from pgqueue.events import WorkerStopped
from proving import Recorder, rows, states


async def test_many_jobs_of_a_dead_worker_are_not_claimed_and_handed_back_again_and_again(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task
    async def noop() -> None: ...

    noop.enqueue_many([{}] * 600)
    rows(database, "update pgqueue.jobs set suspect = true where id % 2 = 0")
    worker = pgq.worker(burst=True, scheduler=False, concurrency=20)
    await asyncio.wait_for(worker.run(), 60)
    assert states(database) == {"completed": 600}
    # A claim may meet more than one, and learns from it; every one of 300 would be 10,000.
    (stopped,) = recorder.of(WorkerStopped)
    assert stopped.handed_back < 600

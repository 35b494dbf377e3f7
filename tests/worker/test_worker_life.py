"""A worker's own life, from start to stop."""

from __future__ import annotations

from pgqueue import PgQueue, State


async def test_a_worker_told_to_stop_before_it_has_started_leaves_at_once(pgq: PgQueue) -> None:
    @pgq.task
    async def noop() -> None: ...

    job = noop.enqueue()
    worker = pgq.worker()
    worker.stop("changed our mind")
    await worker.run()

    assert pgq.get_job(job.id).state is State.QUEUED
    with pgq.connection() as connection:
        assert connection.execute("select count(*) from pgqueue.workers").fetchone() == (0,)

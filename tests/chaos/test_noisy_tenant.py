"""A tenant with a long line costs the others nothing that they could tell."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from pgqueue import Limit, PgQueue
from proving import rows, value

OTHERS = 20
JOBS = 10

WAIT = """
select percentile_cont(0.95) within group (
  order by extract(epoch from started_at - created_at)
)
from pgqueue.finished_jobs
where tenant <> 'noisy'
"""


@dataclass(frozen=True)
class Waits:
    quiet: float
    noisy: float


async def _wait(pgq: PgQueue, database: str, noise: int) -> float:
    """The others' 95th percentile, in seconds, behind so many jobs of one tenant."""

    @pgq.task(name="send", limits=[Limit("mail", running=8), Limit("tenant:{tenant}", running=5)])
    async def send(n: int) -> None:
        await asyncio.sleep(0.02)

    send.using(tenant="noisy").enqueue_many({"n": n} for n in range(noise))
    workers = [pgq.worker(concurrency=10) for _ in range(2)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    if noise:
        while not value(database, "select count(*) from pgqueue.finished_jobs"):  # noqa: ASYNC110 - seen in the database
            await asyncio.sleep(0.05)
    for n in range(OTHERS):
        await send.using(tenant=f"t{n}").aenqueue_many([{"n": n}] * JOBS)
    done = "select count(*) from pgqueue.finished_jobs where tenant <> 'noisy'"
    async with asyncio.timeout(200):
        while await asyncio.to_thread(value, database, done) < OTHERS * JOBS:  # noqa: ASYNC110 - seen there
            await asyncio.sleep(0.05)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    waited = float(value(database, WAIT))
    rows(database, "delete from pgqueue.jobs")
    rows(database, "delete from pgqueue.finished_jobs")
    return waited


async def _both(pgq: PgQueue, database: str, noise: int) -> Waits:
    waits = Waits(await _wait(pgq, database, 0), await _wait_again(database, noise))
    print(f"p95: {waits.quiet:.2f} s alone, {waits.noisy:.2f} s behind {noise} jobs")  # noqa: T201
    return waits


async def _wait_again(database: str, noise: int) -> float:
    app = PgQueue(database)
    try:
        return await _wait(app, database, noise)
    finally:
        app.close()


async def test_others_wait_no_longer_behind_a_thousand_jobs_of_one_tenant(
    pgq: PgQueue, database: str
) -> None:
    waits = await _both(pgq, database, 1_000)
    # Of a machine that is busy with other things: the slow one measures.
    assert waits.noisy < 4 * waits.quiet + 1


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_others_wait_no_longer_behind_a_hundred_thousand_jobs_of_one_tenant(
    pgq: PgQueue, database: str
) -> None:
    waits = await _both(pgq, database, 100_000)
    assert waits.noisy < 2 * waits.quiet

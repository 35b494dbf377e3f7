"""Events before, during and after the wait, from transactions of any length: none is lost."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pgqueue import Job, PgQueue
from proving import rows, value

CHUNK = 250
EMITTERS = 6
# The wait is over at once, was begun while the emitter's transaction was open, or long before.
MOMENTS = """
select
  count(*) filter (where finished_at < created_at + interval '1 millisecond'),
  count(*) filter (where finished_at between created_at + interval '1 millisecond'
    and created_at + interval '50 milliseconds'),
  count(*) filter (where finished_at > created_at + interval '50 milliseconds')
from pgqueue.job_steps
"""


def _emit(pgq: PgQueue, connection: psycopg.Connection, job_id: int, moment: float) -> None:
    """In a transaction of any length; now and then it rolls back before it is done again."""
    rand = random.Random(job_id)  # noqa: S311 - repeatable
    time.sleep(moment)
    for commits in (rand.random() < 0.9, True):
        pgq.emit("go", job_id, job_id, connection=connection)
        time.sleep(rand.choice((0.0, 0.0, 0.001, 0.005)))
        if commits:
            connection.commit()
            return
        connection.rollback()


async def _rounds(database: str, pgq: PgQueue, count: int) -> None:
    @pgq.task
    async def wait(job: Job) -> int:
        return int(await job.wait_for("go", job.id))

    rand = random.Random(7)  # noqa: S311 - repeatable
    worker = pgq.worker(scheduler=False, concurrency=8)
    running = asyncio.create_task(worker.run())
    connections = [psycopg.connect(database) for _ in range(EMITTERS)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(EMITTERS) as threads:
        for start in range(0, count, CHUNK):
            ids = await asyncio.to_thread(wait.enqueue_many, [{}] * min(CHUNK, count - start))
            emitting = [
                loop.run_in_executor(threads, _emit_all, pgq, connection, part, rand)
                for connection, part in zip(connections, _parts(ids), strict=True)
            ]
            await asyncio.gather(*emitting)
            await asyncio.to_thread(_until_all_have_ended, database, start + len(ids))
    for connection in connections:
        connection.close()
    worker.stop("the test is over")
    await running


def _parts(ids: list[int]) -> list[list[int]]:
    return [ids[place::EMITTERS] for place in range(EMITTERS)]


def _emit_all(
    pgq: PgQueue, connection: psycopg.Connection, ids: list[int], rand: random.Random
) -> None:
    for job_id in rand.sample(ids, len(ids)):
        _emit(pgq, connection, job_id, rand.choice((0.0, 0.0, 0.002, 0.01)))


def _until_all_have_ended(database: str, count: int) -> None:
    deadline = time.monotonic() + 30
    ended = 0
    while ended < count:
        ended = value(database, "select count(*) from pgqueue.finished_jobs")
        assert time.monotonic() < deadline, f"{count - ended} of {count} wait for ever"
        time.sleep(0.02)


def _check(database: str, count: int) -> None:
    wrong = "select id, result from pgqueue.finished_jobs where result <> to_jsonb(id)"
    assert rows(database, wrong) == []
    assert value(database, "select count(distinct event_id) from pgqueue.job_steps") == count
    moments = rows(database, MOMENTS)[0]
    print(f"{count} rounds: at once, while it was left, later: {moments}")  # noqa: T201
    assert min(moments) > 0, "one of the three orders did not happen"


async def test_three_hundred_waits_all_get_their_event(database: str, pgq: PgQueue) -> None:
    await asyncio.wait_for(_rounds(database, pgq, 300), 100)
    _check(database, 300)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_ten_thousand_waits_all_get_their_event(database: str, pgq: PgQueue) -> None:
    await asyncio.wait_for(_rounds(database, pgq, 10_000), 800)
    _check(database, 10_000)

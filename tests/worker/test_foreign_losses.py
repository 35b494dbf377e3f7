"""A handler that meets the loss of a lease that is not its own has failed like any other."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from pgqueue import Job, PgQueue, Retry
from pgqueue.errors import LeaseLost
from pgqueue.events import LeasesLost
from proving import Recorder, rows, value

ERRORS = "select errors from pgqueue.finished_jobs"


async def _drain(pgq: PgQueue) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)


async def _met(pgq: PgQueue, database: str) -> list[dict[str, Any]]:
    """What the only job's failed tries were, after a worker's run."""
    await _drain(pgq)
    assert value(database, "select state from pgqueue.all_jobs") == "failed"
    found: list[dict[str, Any]] = value(database, ERRORS)
    return found


async def test_in_a_thread(database: str, pgq: PgQueue, recorder: Recorder) -> None:
    @pgq.task(retry=Retry(attempts=2, delays=[0]))
    def nested(job: Job) -> None:
        raise LeaseLost(job.id + 1, 1)

    nested.enqueue()
    errors = await _met(pgq, database)
    assert [error["attempt"] for error in errors] == [1, 2]
    assert {error["type"] for error in errors} == {"LeaseLost"}
    assert recorder.of(LeasesLost) == []


async def test_on_the_loop_of_an_earlier_lease_of_the_same_job(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task
    async def nested(job: Job) -> None:
        raise LeaseLost(job.id, (job.lease or 0) + 1)

    nested.enqueue()
    assert len(await _met(pgq, database)) == 1
    assert recorder.of(LeasesLost) == []


@pytest.mark.parametrize("place", ["on the loop", "in a thread"])
async def test_in_a_transaction_that_then_rolls_back(
    database: str, pgq: PgQueue, recorder: Recorder, place: str
) -> None:
    rows(database, "create table effects (job bigint)")

    async def on_loop(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("insert into effects values (%s)", [job.id])
        raise LeaseLost(job.id + 1, 1)

    def in_thread(job: Job, connection: psycopg.Connection[Any]) -> None:
        connection.execute("insert into effects values (%s)", [job.id])
        raise LeaseLost(job.id + 1, 1)

    pgq.task(name="nested")(on_loop if place == "on the loop" else in_thread).enqueue()
    assert len(await _met(pgq, database)) == 1
    assert rows(database, "select job from effects") == []
    assert recorder.of(LeasesLost) == []


async def test_in_the_call_of_a_batch(database: str, pgq: PgQueue, recorder: Recorder) -> None:
    @pgq.task(batch=10)
    def nested(jobs: list[Job]) -> None:
        raise LeaseLost(max(job.id for job in jobs) + 1, 1)

    nested.enqueue_many([{}] * 3)
    await _drain(pgq)
    states = rows(database, "select state, count(*) from pgqueue.all_jobs group by 1")
    assert states == [("failed", 3)]
    assert recorder.of(LeasesLost) == []


async def test_its_own_loss_is_still_no_failure(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task
    async def robbed(job: Job) -> None:
        rows(database, "update pgqueue.jobs set lease = lease + 1, worker_id = 0")
        async with job.transaction():
            pass

    job = robbed.enqueue()
    await _drain(pgq)
    assert recorder.of(LeasesLost)[0].job_ids == (job.id,)
    assert value(database, "select state from pgqueue.all_jobs") == "running"

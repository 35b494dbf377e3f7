"""Somebody's open transaction on one running job holds up that job alone, and loses nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from life.conftest import Working
from pgqueue import Job, PgQueue
from pgqueue.db.run import run
from pgqueue.engine.cancel import end_expired
from pgqueue.events import EndingsHeldUp, JobEnded, JobStarted, LeasesLost
from proving import Recorder, rows, states, until, value

REPLACED = "select pgqueue.enqueue('work', unique_key => 'k', unique_mode => 'replace')"
CANCELLED = "update pgqueue.jobs set cancel_requested_at = now() where state = 'running'"
PROVED = "select from pgqueue.jobs where state = 'running' for update"


@pytest.fixture
def caller(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as connection:
        yield connection


async def ended(database: str, count: int) -> None:
    counted = "select count(*) from pgqueue.finished_jobs"
    await asyncio.to_thread(until, lambda: value(database, counted) == count, 10)


@pytest.fixture
def gate(pgq: PgQueue) -> threading.Event:
    """`work` waits for it; `other` does not."""
    gate = threading.Event()

    @pgq.task
    def work(job: Job) -> None:
        gate.wait(20)
        job.progress(100, "done")

    @pgq.task
    def other() -> None: ...

    return gate


@pytest.mark.parametrize("doing", [REPLACED, CANCELLED, PROVED])
async def test_the_other_jobs_of_its_worker_end_and_new_ones_are_claimed_meanwhile(
    pgq: PgQueue,
    database: str,
    working: Working,
    recorder: Recorder,
    gate: threading.Event,
    caller: psycopg.Connection[Any],
    doing: str,
) -> None:
    stuck = pgq.enqueue("work", unique_key="k")
    async with working():
        await recorder.await_(JobStarted)
        caller.execute(doing)
        gate.set()
        await recorder.await_(JobEnded, where=lambda event: event.job_id == stuck.id)
        for _ in range(3):
            await asyncio.to_thread(pgq.enqueue, "other")
        await ended(database, 3)
        assert value(database, "select state from pgqueue.jobs where id = %s", [stuck.id]) == (
            "running"
        )
        caller.commit()
        await ended(database, 5 if doing == REPLACED else 4)
    ending = "select state, progress ->> 'message' from pgqueue.finished_jobs where id = %s"
    assert rows(database, ending, [stuck.id]) == [("completed", "done")]
    assert recorder.of(LeasesLost) == []
    assert [event.job_ids for event in recorder.of(EndingsHeldUp)] == [(stuck.id,)]


async def test_progress_of_the_other_jobs_is_written_meanwhile(
    pgq: PgQueue,
    database: str,
    working: Working,
    recorder: Recorder,
    caller: psycopg.Connection[Any],
) -> None:
    gate = threading.Event()

    @pgq.task
    def work(job: Job) -> None:
        while not gate.wait(0.05):
            job.progress(50, "half")

    try:
        first, second = work.enqueue(), work.enqueue()
        async with working():
            await recorder.await_(JobStarted, count=2)
            caller.execute("select from pgqueue.jobs where id = %s for update", [first.id])
            rows(database, "update pgqueue.jobs set progress = null where id = %s", [second.id])
            told = "select progress ->> 'message' from pgqueue.jobs where id = %s"
            half: Callable[[], bool] = lambda: value(database, told, [second.id]) == "half"  # noqa: E731
            await asyncio.to_thread(until, half, 10)
            caller.commit()
            gate.set()
            await ended(database, 2)
    finally:
        gate.set()


async def test_what_is_held_up_is_not_asked_for_without_pause(
    pgq: PgQueue,
    database: str,
    working: Working,
    recorder: Recorder,
    gate: threading.Event,
    caller: psycopg.Connection[Any],
) -> None:
    pgq.enqueue("work")
    async with working() as worker:
        await recorder.await_(JobStarted)
        caller.execute(PROVED)
        tries = 0
        write = worker._conveyor.writer._exchange.write

        async def counted(outcomes: Any, notes: Any) -> Any:
            nonlocal tries
            tries += bool(outcomes)
            return await write(outcomes, notes)

        worker._conveyor.writer._exchange.write = counted
        gate.set()
        await recorder.await_(EndingsHeldUp)
        await asyncio.sleep(1.5)
        assert 2 <= tries <= 10
        caller.commit()
        await ended(database, 1)


async def test_a_lease_that_was_taken_meanwhile_counts_as_lost_and_not_as_held_up(
    pgq: PgQueue,
    database: str,
    working: Working,
    recorder: Recorder,
    gate: threading.Event,
    caller: psycopg.Connection[Any],
) -> None:
    stuck = pgq.enqueue("work")
    async with working():
        await recorder.await_(JobStarted)
        caller.execute(
            "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null, "
            "run_at = now() + interval '1 hour'"
        )
        gate.set()
        await recorder.await_(EndingsHeldUp)
        caller.commit()
        (lost,) = await recorder.await_(LeasesLost)
        assert lost.job_ids == (stuck.id,)
    assert states(database) == {"queued": 1}


def test_one_held_row_does_not_keep_the_others_from_expiring(
    pgq: PgQueue, database: str, gate: threading.Event, caller: psycopg.Connection[Any]
) -> None:
    first, second = pgq.enqueue("other"), pgq.enqueue("other")
    rows(database, "update pgqueue.jobs set expires_at = now() - interval '1 minute'")
    caller.execute("select from pgqueue.jobs where id = %s for update", [first.id])
    with pgq.connection() as connection:
        connection.execute("set lock_timeout = '2s'")
        assert run(connection, end_expired(pgq.sql)) == 1
    assert rows(database, "select id from pgqueue.finished_jobs") == [(second.id,)]

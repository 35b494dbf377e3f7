"""A step is done once and given back on every later try; what is lost or refused keeps nothing."""

from __future__ import annotations

import asyncio
import math
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from step_tasks import in_process

from pgqueue import Job, PgQueue, Retry, Snooze
from pgqueue.events import LeasesLost
from proving import Recorder, rows, until, value

TWICE = Retry(attempts=2, delays=[0])
KEPT = "select name, result, attempt from pgqueue.job_steps where kind = 'step' order by name"


async def work(pgq: PgQueue, **options: Any) -> None:
    worker = pgq.worker(burst=True, scheduler=False, **options)
    await asyncio.wait_for(worker.run(), 30)


def error_of(pgq: PgQueue, job_id: int) -> str:
    """The last error's message."""
    return str(pgq.show_job(job_id)["errors"][-1]["message"])


async def test_an_async_handler_that_failed_goes_on_behind_its_last_step(
    database: str, pgq: PgQueue
) -> None:
    called: list[str] = []

    def load(n: int) -> dict[str, Any]:
        called.append("load")
        return {"n": n, "pair": (1, 2)}

    async def total(n: int, *, plus: int) -> int:
        called.append("total")
        return n + plus

    @pgq.task(retry=TWICE)
    async def handle(job: Job) -> list[Any]:
        loaded = await job.step("load", load, 7)
        if job.attempt == 1:
            raise OSError("away")
        return [loaded, await job.step("total", total, loaded["n"], plus=1)]

    job = handle.enqueue()
    await work(pgq)
    assert called == ["load", "total"]
    assert job.result(timeout=5) == [{"n": 7, "pair": [1, 2]}, 8]
    assert rows(database, KEPT) == [("load", {"n": 7, "pair": [1, 2]}, 1), ("total", 8, 2)]


async def test_a_sync_handler_has_its_steps_without_await(pgq: PgQueue) -> None:
    called: list[str] = []

    @pgq.task(retry=TWICE)
    def handle(job: Job) -> list[Any]:
        first = job.step("first", lambda: called.append("first"))
        second = job.step("second", lambda: called.append("second") or "done")
        if job.attempt == 1:
            raise OSError("away")
        return [first, second]

    job = handle.enqueue()
    await work(pgq)
    assert called == ["first", "second"]
    assert job.result(timeout=5) == [None, "done"]


async def test_the_first_try_gets_what_later_ones_get(pgq: PgQueue) -> None:
    given: list[Any] = []

    @pgq.task(retry=TWICE)
    def handle(job: Job) -> None:
        given.append(job.step("time", lambda: {"at": datetime(2030, 1, 1, tzinfo=UTC), "b": (1,)}))
        if job.attempt == 1:
            raise OSError("away")

    handle.enqueue()
    await work(pgq)
    assert given == [{"at": "2030-01-01T00:00:00Z", "b": [1]}] * 2


async def test_a_step_that_raises_keeps_nothing_and_is_done_again(
    database: str, pgq: PgQueue
) -> None:
    tries: list[int] = []

    def fetch() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("away")
        return "fetched"

    @pgq.task(retry=TWICE)
    async def handle(job: Job) -> str:
        return str(await job.step("fetch", fetch))

    job = handle.enqueue()
    await work(pgq)
    assert len(tries) == 2
    assert job.result(timeout=5) == "fetched"
    assert rows(database, KEPT) == [("fetch", "fetched", 2)]


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_a_transactional_steps_writes_and_its_note_are_one_commit(
    database: str, pgq: PgQueue, way: str
) -> None:
    rows(database, "create table effects (n int)")

    async def awrite(n: int, connection: psycopg.AsyncConnection[Any]) -> str:
        await connection.execute("insert into effects values (%s)", [n])
        return "written"

    def write(n: int, connection: psycopg.Connection[Any]) -> str:
        connection.execute("insert into effects values (%s)", [n])
        return "written"

    def unstorable(connection: psycopg.Connection[Any]) -> float:
        connection.execute("insert into effects values (-1)")
        return math.nan

    async def ahandle(job: Job) -> str:
        kept = await job.step("write", awrite, 5)
        if job.attempt == 1:
            raise OSError("away")
        return str(kept)

    def handle(job: Job) -> str:
        kept = job.step("write", write, 5)
        if job.attempt == 1:
            raise OSError("away")
        with pytest.raises(ValueError, match="not JSON"):
            job.step("unstorable", unstorable)
        return str(kept)

    task = pgq.task(retry=TWICE)(ahandle if way == "async" else handle)
    job = task.enqueue()
    await work(pgq)
    assert job.result(timeout=5) == "written"
    assert rows(database, "select n from effects") == [(5,)]


STEAL = "update pgqueue.jobs set lease = lease + 1, worker_id = 0 where id = %s"


@pytest.mark.parametrize("way", ["async", "sync", "transaction"])
async def test_a_zombies_step_is_refused_and_leaves_no_trace(
    database: str, pgq: PgQueue, recorder: Recorder, way: str
) -> None:
    rows(database, "create table effects (n int)")

    def steal(job_id: int) -> str:
        rows(database, STEAL, [job_id])
        return "stolen"

    def write(job_id: int, connection: psycopg.Connection[Any]) -> None:
        connection.execute("insert into effects values (1)")
        steal(job_id)

    async def ahandle(job: Job) -> None:
        await job.step("steal", steal, job.id)

    def handle(job: Job) -> None:
        job.step("steal", write if way == "transaction" else steal, job.id)

    job = pgq.task(ahandle if way == "async" else handle).enqueue()
    await work(pgq)
    assert recorder.of(LeasesLost)[0].job_ids == (job.id,)
    assert rows(database, KEPT) == []
    assert rows(database, "select n from effects") == []
    assert value(database, "select state from pgqueue.jobs") == "running", "the thief's try goes on"


async def test_a_step_in_a_child_process_is_kept(database: str, pgq: PgQueue) -> None:
    task = pgq.task(isolation="process", retry=TWICE)(in_process)
    job = task.enqueue()
    await work(pgq)
    assert rows(database, KEPT) == [("pid", "first", 1)]
    assert job.result(timeout=5) == "first"


async def test_steps_beside_each_other_are_each_kept(database: str, pgq: PgQueue) -> None:
    meeting = asyncio.Barrier(3)

    async def part(n: int) -> int:
        await meeting.wait()
        return n

    @pgq.task
    async def handle(job: Job) -> list[int]:
        return await asyncio.gather(*(job.step(f"part-{n}", part, n) for n in range(3)))

    job = handle.enqueue()
    await work(pgq)
    assert job.result(timeout=5) == [0, 1, 2]
    assert value(database, "select count(*) from pgqueue.job_steps") == 3


async def test_a_cancelled_threads_next_step_does_not_begin(pgq: PgQueue) -> None:
    running, go_on, done = threading.Event(), threading.Event(), threading.Event()
    called: list[str] = []

    @pgq.task
    def handle(job: Job) -> None:
        running.set()
        try:
            go_on.wait(20)
            job.step("late", called.append, "late")
        finally:
            done.set()

    job = handle.enqueue()
    worker = pgq.worker(scheduler=False)
    run = asyncio.create_task(worker.run())
    await asyncio.to_thread(running.wait, 20)
    pgq.cancel(job.id)
    await asyncio.to_thread(until, lambda: pgq.get_job(job.id).state != "running")
    go_on.set()
    await asyncio.to_thread(done.wait, 20)
    worker.stop()
    await run
    assert called == []


async def test_a_verdict_that_a_step_returns_speaks_for_the_job(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def handle(job: Job) -> str:
        return str(await job.step("ask", lambda: Snooze(3600)))

    job = handle.enqueue()
    await work(pgq)
    assert value(database, "select run_at - created_at > interval '59 minutes' from pgqueue.jobs")
    assert pgq.get_job(job.id).attempt == 0
    assert rows(database, KEPT) == []


async def fail_once_behind_a_step(pgq: PgQueue, called: list[int]) -> Job:
    @pgq.task
    async def handle(n: int, job: Job) -> int:
        await job.step("first", called.append, n)
        if len(called) == 1 and job.attempt == 1:
            raise OSError("away")
        return n

    job = handle.enqueue(n=1)
    await work(pgq)
    assert pgq.get_job(job.id).state == "failed"
    return job


async def test_a_retry_goes_on_behind_the_steps_that_are_done(pgq: PgQueue) -> None:
    called: list[int] = []
    job = await fail_once_behind_a_step(pgq, called)
    pgq.retry(job.id)
    await work(pgq)
    assert called == [1]
    assert job.result(timeout=5) == 1


async def test_a_retry_from_the_start_and_a_replay_forget_them(database: str, pgq: PgQueue) -> None:
    called: list[int] = []
    job = await fail_once_behind_a_step(pgq, called)
    pgq.retry(job.id, from_start=True)
    assert rows(database, KEPT) == []
    await work(pgq)
    assert called == [1, 1]
    pgq.replay(job.id, {"n": 2})
    await work(pgq)
    assert called == [1, 1, 2]
    assert value(
        database,
        "select details -> 'from_start' from pgqueue.audit_log where action = 'retry'",
    )


async def test_a_deleted_jobs_steps_go_with_it(database: str, pgq: PgQueue) -> None:
    job = await fail_once_behind_a_step(pgq, [])
    pgq.delete(job.id)
    assert rows(database, KEPT) == []

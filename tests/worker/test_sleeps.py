"""Sleeping: without a slot, without a try; and what leaves a handler is not to be caught."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from step_tasks import naps_in_process
from waiting_rig import STATE, come_true, result_of, waits, working

from pgqueue import Job, Parked, PgQueue
from pgqueue.events import JobRequeued
from proving import Recorder, rows


async def test_a_sleeping_job_holds_no_slot_and_no_try(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    called: list[str] = []

    @pgq.task
    async def sleeper(job: Job) -> str:
        called.append(f"sleeper {job.attempt}")
        await job.sleep(0.5)
        return "slept"

    @pgq.task
    async def other() -> None:
        called.append("other")

    job = sleeper.enqueue()
    async with working(pgq, concurrency=1):
        await recorder.await_(JobRequeued)
        await other.aenqueue()
        assert await result_of(job) == "slept"
    assert called == ["sleeper 1", "other", "sleeper 1"]
    assert pgq.show_job(job.id)["errors"] == []


async def test_a_sync_handler_sleeps_and_waits_in_a_process_of_its_own_too(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    def in_thread(job: Job) -> str:
        job.sleep(timedelta(milliseconds=200), name="nap")
        return str(job.wait_for("woken", job.id, timeout=30))

    jobs = [in_thread.enqueue(), pgq.task(isolation="process")(naps_in_process).enqueue()]
    async with working(pgq):
        await waits(database, 2)
        for job in jobs:
            pgq.emit("woken", job.id, f"job {job.id}")
        assert [await result_of(job) for job in jobs] == [f"job {job.id}" for job in jobs]


async def test_a_sleep_ends_at_the_time_that_was_written_down_first(
    database: str, pgq: PgQueue
) -> None:
    until_then = datetime.now(UTC) + timedelta(hours=2)

    @pgq.task
    async def sleeper(job: Job) -> None:
        await job.sleep(until_then if job.attempt == 1 else 5)

    job = sleeper.enqueue()
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    assert rows(database, STATE, [job.id]) == [("queued", True, 0)]
    # Whoever brings it back before its time only lets it lie down again.
    pgq.retry(job.id)
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    ((wake_at, run_at),) = rows(
        database, "select wake_at, run_at from pgqueue.jobs join pgqueue.job_steps on job_id = id"
    )
    assert wake_at == until_then
    assert until_then <= run_at < until_then + timedelta(seconds=30)


async def test_sleeps_without_a_name_are_counted(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def sleeper(job: Job) -> None:
        for _ in range(3):
            await job.sleep(0.01)

    job = sleeper.enqueue()
    async with working(pgq):
        await result_of(job)
    names = rows(database, "select name from pgqueue.job_steps order by created_at")
    assert names == [("sleep",), ("sleep#2",), ("sleep#3",)]


async def test_a_sleeping_job_is_cancelled_at_once(pgq: PgQueue, recorder: Recorder) -> None:
    @pgq.task
    async def sleeper(job: Job) -> None:
        await job.sleep(3600)

    job = sleeper.enqueue()
    async with working(pgq):
        await recorder.await_(JobRequeued)
        await come_true(lambda: pgq.get_job(job.id).state == "queued")
        assert pgq.cancel(job.id).ended == (job.id,)


async def test_no_except_exception_keeps_a_handler_that_sleeps(pgq: PgQueue) -> None:
    caught: list[str] = []

    @pgq.task
    async def careful(job: Job) -> str:
        try:
            await job.sleep(0.05)
        except Exception:  # noqa: BLE001 - that is the point
            caught.append("exception")
        finally:
            caught.append("finally")
        return "slept"

    @pgq.task
    async def careless(job: Job) -> str:
        try:
            await job.sleep(0.05)
        except BaseException:  # noqa: BLE001 - that is the point
            caught.append("base")
        await job.step("after", caught.append, "after")
        return "slept"

    @pgq.task
    async def grouped(job: Job) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(job.sleep(0.05, name="short"))
            group.create_task(job.sleep(0.1, name="long"))
        return "slept"

    async with working(pgq):
        for task in (careful, careless, grouped):
            job = await task.aenqueue()
            assert await result_of(job) == "slept"
    assert caught == ["finally", "finally", "base", "after"]


async def test_a_sleep_in_a_transactional_handler_rolls_its_writes_back(
    database: str, pgq: PgQueue
) -> None:
    rows(database, "create table effects (n int)")

    @pgq.task
    def writer(job: Job, connection: psycopg.Connection[Any]) -> None:
        connection.execute("insert into effects values (1)")
        job.sleep(0.05)

    job = writer.enqueue()
    async with working(pgq):
        await result_of(job)
    assert rows(database, "select n from effects") == [(1,)]


def test_what_leaves_a_handler_is_no_exception() -> None:
    assert not issubclass(Parked, Exception)

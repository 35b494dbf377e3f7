"""Waiting for events: who is woken, by what, how often, and how that is seen."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from waiting_rig import WAITING, come_true, result_of, run_alone, waits, working

from pgqueue import EventTimeout, Job, Limit, PgQueue, Retry
from pgqueue.events import JobRequeued, JobStarted
from proving import Recorder, rows, value


def waiter(pgq: PgQueue, **how: Any) -> Any:
    @pgq.task(name="waiter")
    async def handle(key: str, job: Job) -> Any:
        return await job.wait_for("paid", key, **how)

    return handle


async def test_an_event_wakes_who_waits_for_its_key_and_nobody_else(
    database: str, pgq: PgQueue
) -> None:
    task = waiter(pgq)
    jobs = [task.enqueue(key=key) for key in ("a", "a", "b")]
    async with working(pgq, concurrency=1):
        await waits(database, 3)
        await pgq.aemit("paid", "a", {"amount": 12})
        assert [await result_of(job) for job in jobs[:2]] == [{"amount": 12}] * 2
        assert value(database, WAITING) == 1
        pgq.emit("shipped", "b")
        pgq.emit("paid", "b")
        assert await result_of(jobs[2]) is None


async def test_an_event_counts_that_came_before_the_wait_and_after_the_job(
    database: str, pgq: PgQueue
) -> None:
    pgq.emit("paid", 7, "too early")
    job = waiter(pgq).enqueue(key="7")
    pgq.emit("paid", 7, "early")
    # Delivered while nobody waits: it is kept all the same.
    assert run_alone(database) == (0, False, False)
    async with working(pgq):
        assert await result_of(job) == "early"


async def test_a_job_gets_each_event_once_and_in_order(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def reader(job: Job) -> list[Any]:
        return [await job.wait_for("line", job.id) for _ in range(4)]

    first, second = reader.enqueue(), reader.enqueue()
    for n in range(2):
        pgq.emit("line", first.id, n)
    pgq.emit("line", second.id, "other")
    async with working(pgq):
        await waits(database, 2)
        for n in range(2, 4):
            pgq.emit("line", first.id, n)
        assert await result_of(first) == [0, 1, 2, 3]
        await waits(database, 1)


async def test_of_waits_beside_each_other_the_event_that_comes_first_brings_the_job_back(
    database: str, pgq: PgQueue
) -> None:
    """Also when it is delivered while the handler is being left for the other one."""
    runs: list[int] = []

    @pgq.task
    async def either(job: Job) -> None:
        runs.append(job.attempt)
        await job.step("loaded", int)
        try:
            await asyncio.gather(job.wait_for("paid", 1), job.wait_for("paid", 2))
        except BaseException:
            if len(runs) == 1:
                await come_true(lambda: value(database, WAITING) == 2)
                pgq.emit("paid", 2, "two")
                await come_true(lambda: value(database, WAITING) == 1 or run_alone(database)[0])
            raise

    either.enqueue()
    async with working(pgq):
        await come_true(lambda: len(runs) == 2)
        await waits(database)


async def test_a_wait_that_takes_too_long_ends_the_same_way_on_every_try(
    database: str, pgq: PgQueue
) -> None:
    said: list[str] = []

    @pgq.task(retry=Retry(attempts=2, delays=[0]))
    async def impatient(job: Job) -> str:
        try:
            await job.wait_for("paid", 7, timeout=0.2)
        except EventTimeout as error:
            said.append(str(error))
            if job.attempt == 1:
                pgq.emit("paid", 7)
                raise OSError("away") from None
        return "gave up"

    job = impatient.enqueue()
    async with working(pgq):
        assert await result_of(job) == "gave up"
    assert said == ["event 'paid' of '7' has not come within 0.2 s"] * 2


async def test_an_event_is_part_of_the_callers_transaction(database: str, pgq: PgQueue) -> None:
    job = waiter(pgq).enqueue(key="7")
    async with working(pgq):
        await waits(database)
        with psycopg.connect(database) as connection:
            pgq.emit("paid", 7, "rolled back", connection=connection)
            connection.rollback()
            pgq.emit("paid", 7, "by psycopg", connection=connection)
            assert value(database, "select count(*) from pgqueue.events") == 0
        assert await result_of(job) == "by psycopg"


async def test_an_event_goes_with_an_sqlalchemy_transaction(database: str, pgq: PgQueue) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    task = waiter(pgq)
    sync, asynchronous = task.enqueue(key="sync"), task.enqueue(key="async")
    engine, async_engine = sa.create_engine(url), create_async_engine(url)
    async with working(pgq):
        await waits(database, 2)
        with engine.begin() as connection:
            pgq.emit("paid", "sync", 1, connection=connection)
        async with async_engine.begin() as async_connection:
            await pgq.aemit("paid", "async", 2, connection=async_connection)
        assert [await result_of(sync), await result_of(asynchronous)] == [1, 2]
    engine.dispose()
    await async_engine.dispose()


async def test_any_language_emits_with_sql(database: str, pgq: PgQueue) -> None:
    job = waiter(pgq).enqueue(key="7")
    async with working(pgq):
        await waits(database)
        rows(database, """select pgqueue.emit('paid', '7', '{"by": "sql"}')""")
        assert await result_of(job) == {"by": "sql"}


async def test_events_that_piled_up_while_no_worker_ran_hold_up_nobody(
    database: str, pgq: PgQueue
) -> None:
    job = waiter(pgq).enqueue(key="last")
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    rows(
        database,
        "insert into pgqueue.events (name, key) select 'paid', n::text "
        "from generate_series(1, 10000) as n",
    )
    pgq.emit("paid", "last", 1)
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 60)
    assert await result_of(job) == 1
    assert value(database, "select count(*) from pgqueue.events where delivered_at is null") == 0


async def test_a_burst_does_not_end_before_an_event_has_woken_its_waiter(pgq: PgQueue) -> None:
    job = waiter(pgq).enqueue(key="7")
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    pgq.emit("paid", 7, 1)
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    assert await result_of(job) == 1


async def test_without_hints_an_event_is_delivered_within_a_second_or_so(
    database: str, pgq: PgQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_NOTIFY", "0")
    deaf = PgQueue(database)
    job = waiter(deaf).enqueue(key="7")
    async with working(deaf):
        await waits(database)
        with psycopg.connect(database) as connection:
            deaf.emit("paid", 7, 1, connection=connection)
        assert await result_of(job) == 1
    deaf.close()


async def test_a_waiting_job_holds_no_place_of_a_limit_and_asks_for_one_again(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task(limits=[Limit("one", running=1)])
    async def limited(n: int, job: Job) -> Any:
        return await job.wait_for("paid", n) if n else "passed"

    first = limited.enqueue(n=1)
    blocked = (
        "select count(*) from pgqueue.jobs where state = 'blocked' and run_at > clock_timestamp()"
    )
    async with working(pgq):
        await come_true(lambda: value(database, blocked) == 1)
        assert await result_of(limited.enqueue(n=0)) == "passed"
        pgq.emit("paid", 1, "woken")
        assert await result_of(first) == "woken"


async def test_why_and_show_say_for_what_a_job_waits(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    handle = pgq.task(name="either")(handle_of)
    sleeper, waits_for = handle.enqueue(nap=True), handle.enqueue(nap=False)
    async with working(pgq):
        await recorder.await_(JobRequeued, count=2)
        await come_true(lambda: pgq.why(waits_for.id)[0].cause == "waits")
        (cause,) = pgq.why(sleeper.id)
        assert cause.message == "it sleeps until 2040-01-01T00:00:00+00:00"
        (cause,) = pgq.why(waits_for.id)
        assert cause.message.startswith("it waits for event 'paid' of '7', until 20")
        (step,) = pgq.show_job(waits_for.id)["steps"]
        assert (step["kind"], step["name"], step["event"]) == ("wait", "paid:7", "paid")


async def handle_of(job: Job, nap: bool) -> None:  # noqa: FBT001 - a payload
    if nap:
        await job.sleep(datetime(2040, 1, 1, tzinfo=UTC))
    await job.wait_for("paid", 7, timeout=timedelta(days=1))


async def test_a_thousand_waiting_jobs_hold_no_slot(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    lock, most = threading.Lock(), [0, 0]

    @pgq.task
    async def handle(n: int, job: Job) -> int:
        with lock:
            most[0] += 1
            most[1] = max(most)
        try:
            return int(await job.wait_for("go", "all")) + n
        finally:
            most[0] -= 1

    @pgq.task
    async def other() -> str:
        return "done"

    ids = handle.enqueue_many([{"n": n} for n in range(1000)])
    async with working(pgq, concurrency=4):
        await waits(database, 1000)
        assert value(database, "select count(*) from pgqueue.jobs where state = 'running'") == 0
        started = len(recorder.of(JobStarted))
        assert started == 1000
        assert await result_of(await other.aenqueue()) == "done"
        assert len(recorder.of(JobStarted)) == started + 1, "who waits is not called to look"
        pgq.emit("go", "all", 5)
        finished = "select count(*) from pgqueue.finished_jobs"
        await come_true(lambda: value(database, finished) == 1001)
    assert most[1] <= 4
    results = rows(database, "select result from pgqueue.finished_jobs where id = any(%s)", [ids])
    assert sorted(result for (result,) in results) == list(range(5, 1005))

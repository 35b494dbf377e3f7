"""Sleeping and waiting for events: without a slot, without a try, and no wake-up is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from step_tasks import naps_in_process

from endings import run_on
from pgqueue import ConfigError, EventTimeout, Job, Limit, Parked, PgQueue, Retry
from pgqueue.db.run import run
from pgqueue.engine.finish import outcome_statements
from pgqueue.engine.steps import StepBook, deliver_events
from pgqueue.errors import LeaseLost
from pgqueue.events import JobRequeued, JobStarted
from pgqueue.job import Requeued
from proving import Recorder, rows, until, value

WAITING = "select count(*) from pgqueue.job_steps where kind = 'wait' and finished_at is null"
PARKED = (
    "select count(*) from pgqueue.job_steps join pgqueue.jobs on jobs.id = job_id "
    "where kind = 'wait' and finished_at is null and state = 'queued'"
)
STATE = "select state, run_at > pgqueue.clock(), attempt from pgqueue.jobs where id = %s"


@asynccontextmanager
async def working(pgq: PgQueue, **options: Any) -> AsyncIterator[None]:
    """While a worker works."""
    worker = pgq.worker(scheduler=False, **options)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop("the test is over")
        await asyncio.wait_for(running, 30)


async def come_true(promise: Any) -> Any:
    return await asyncio.to_thread(until, promise)


async def result_of(job: Job) -> Any:
    return await job.aresult(timeout=20)


async def waits(database: str, count: int = 1) -> None:
    """Until so many waits are open and their jobs are put back."""
    await come_true(lambda: value(database, PARKED) == count)


# -- sleep -----------------------------------------------------------------------


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


# -- events ----------------------------------------------------------------------


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


# -- the races, step by step -------------------------------------------------------


def run_alone(database: str) -> tuple[int, bool, bool]:
    """One delivery, as a worker does it."""
    query = "select woken, has_more, has_waiters from pgqueue.deliver_events()"
    ((woken, has_more, has_waiters),) = rows(database, query)
    return woken, has_more, has_waiters


class Hands:
    """A job that runs in the test's hands, with lease 5, and waits for `paid`, '7'."""

    def __init__(self, database: str, pgq: PgQueue) -> None:
        self.pgq = pgq
        self.url = database
        self.job = pgq.task(name="held")(lambda: None).enqueue()
        self.book = StepBook(pgq.sql)
        self.start()

    def start(self) -> None:
        run_on(self.url, self.job.id, 1)

    def wait(self, connection: Any = None, timeout: float | None = None) -> Any:
        steps = self.book.wait(self.job.id, 5, "paid:7", "paid", "7", timeout)
        if connection is not None:
            return run(connection, steps)
        with psycopg.connect(self.url, autocommit=True) as own:
            return run(own, steps)

    def put_back(self, connection: psycopg.Connection[Any]) -> None:
        """As the writer does it, in a transaction that stays open."""
        outcome = Requeued(self.job.id, 5, 3600.0, uncounted=1, waits="paid:7")
        for statement in outcome_statements(self.pgq.sql, [outcome]):
            connection.execute(statement.text, statement.params)

    @property
    def is_due(self) -> bool:
        query = "select state = 'queued' and run_at <= clock_timestamp() from pgqueue.jobs"
        return bool(value(self.url, query))


def test_an_event_whose_transaction_is_open_while_its_waiter_looks_is_delivered(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    with psycopg.connect(database) as emitter:
        pgq.emit("paid", 7, 1, connection=emitter)
        assert not hands.wait().is_over
        assert run_alone(database)[0] == 0
    assert run_alone(database) == (1, False, False)
    assert hands.wait().result == 1


def test_an_emitter_with_a_snapshot_older_than_the_wait_wakes_it(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    with psycopg.connect(database) as emitter:
        emitter.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        emitter.execute("select count(*) from pgqueue.job_steps")
        assert not hands.wait().is_over
        pgq.emit("paid", 7, 1, connection=emitter)
    assert run_alone(database)[0] == 1


def test_an_event_that_is_delivered_while_the_handler_is_left_lets_the_job_run_at_once(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    pgq.emit("paid", 7, 1)
    assert run_alone(database)[0] == 1
    with psycopg.connect(database) as writer:
        hands.put_back(writer)
    assert hands.is_due


def test_an_event_that_comes_while_the_job_is_put_back_is_delivered_after(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    with psycopg.connect(database) as writer:
        hands.put_back(writer)
        pgq.emit("paid", 7, 1)
        assert run_alone(database) == (0, True, True), "the row is held: nobody waits for it"
    assert not hands.is_due
    assert run_alone(database) == (1, False, False)
    assert hands.is_due


def test_a_writer_that_meets_a_delivery_tries_again(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    pgq.emit("paid", 7, 1)
    with psycopg.connect(database) as deliverer, psycopg.connect(database) as writer:
        assert run(deliverer, deliver_events(pgq.sql)).woken == 1
        hands.put_back(writer)
        writer.commit()
        assert value(database, "select state from pgqueue.jobs") == "running", "it was skipped"
        deliverer.commit()
        hands.put_back(writer)
    assert hands.is_due


def test_an_event_and_the_end_of_a_wait_exclude_each_other(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait(timeout=0.0)
    pgq.emit("paid", 7, 1)
    assert run_alone(database)[0] == 0
    standing = hands.wait(timeout=0.0)
    assert (standing.is_over, standing.has_come) == (True, False)


def test_two_deliveries_at_once_bring_an_event_once(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait()
    pgq.emit("paid", 7, 1)
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        woken = [run(one, deliver_events(pgq.sql)).woken for one in (first, second)]
    assert woken == [1, 0]


def test_a_zombie_neither_waits_nor_sleeps(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    rows(database, "update pgqueue.jobs set lease = 6")
    with pytest.raises(LeaseLost):
        hands.wait()
    with psycopg.connect(database, autocommit=True) as connection, pytest.raises(LeaseLost):
        run(connection, hands.book.sleep(hands.job.id, 5, "sleep", 5.0, None))
    assert value(database, "select count(*) from pgqueue.job_steps") == 0


def test_a_wait_that_was_for_another_event_is_told(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait()
    steps = hands.book.wait(hands.job.id, 5, "paid:7", "shipped", "7", None)
    message = (
        "wait 'paid:7' was for event 'paid' of '7' in an earlier try, and is for 'shipped' of '7' "
        "now: give each wait a name of its own"
    )
    with (
        psycopg.connect(database, autocommit=True) as connection,
        pytest.raises(ConfigError, match=f"^{message}$"),
    ):
        run(connection, steps)


def test_a_delivery_of_many_waiters_goes_on_where_it_stopped(database: str, pgq: PgQueue) -> None:
    rows(
        database,
        "with made as (insert into pgqueue.jobs (task, queue, run_at) select 'many', 'default', "
        "pgqueue.clock() + interval '1 hour' from generate_series(1, 1200) returning id) "
        "insert into pgqueue.job_steps (job_id, kind, name, attempt, event, event_key) "
        "select id, 'wait', 'w', 1, 'paid', '7' from made",
    )
    pgq.emit("paid", 7)
    assert [run_alone(database) for _ in range(3)] == [
        (500, True, True),
        (500, True, True),
        (200, False, False),
    ]
    due = "select count(*) from pgqueue.jobs where run_at <= clock_timestamp()"
    assert value(database, due) == 1200


def test_no_delivery_reads_a_whole_table(database: str, pgq: PgQueue) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("events", "job_steps"):
            connection.execute(f"alter table pgqueue.{table} set (autovacuum_enabled = off)")
            connection.execute(f"analyze pgqueue.{table}")
        connection.execute(
            "insert into pgqueue.events (name, key, delivered_at) "
            "select 'paid', n::text, now() from generate_series(1, 20000) as n"
        )
        connection.execute(
            "insert into pgqueue.job_steps (job_id, kind, name, attempt, event, event_key, "
            "finished_at) select n, 'wait', 'w', 1, 'paid', n::text, now() "
            "from generate_series(1, 20000) as n"
        )
        hands = Hands(database, pgq)
        hands.wait()
        pgq.emit("paid", 7, 1)
        scans = "select sum(seq_scan) from pg_stat_xact_user_tables where relname in (%s, %s)"
        with connection.transaction():
            assert run(connection, deliver_events(pgq.sql)).woken == 1
            counted = connection.execute(scans, ["events", "job_steps"]).fetchone()
    assert counted == (0,)


# -- what is seen ------------------------------------------------------------------


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


def test_what_leaves_a_handler_is_no_exception() -> None:
    assert not issubclass(Parked, Exception)

"""Idle workers sleep long and are woken by a hint; without one they look by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.run import run
from pgqueue.engine.notify import EVENTS, RING_EVERY, SCHEDULES, Bell
from pgqueue.events import DutyFailed, JobStarted, WorkerStarted
from pgqueue.job import NewJob
from pgqueue.worker.listener import Listener
from pgqueue.worker.loop import FIRST_REST
from proving import Recorder, rows, until, value

SLOW_POLL = 3600.0
"""Seconds: what starts before was not found by polling."""


@pytest.fixture
def sleepy(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PgQueue]:
    """An app whose workers look for work once an hour, unless they are told of some."""
    monkeypatch.setenv("PGQUEUE_POLL_INTERVAL", str(SLOW_POLL))
    app = PgQueue(database)
    app.task(name="noop")(_noop)
    yield app
    app.close()


async def _noop() -> None: ...


@asynccontextmanager
async def asleep(app: PgQueue, database: str, recorder: Recorder) -> AsyncIterator[None]:
    """A worker of `app` that listens and has found nothing to do."""
    worker = app.worker(concurrency=2, shutdown_timeout=0.0, scheduler=False)
    running = asyncio.create_task(worker.run())
    try:
        await recorder.await_(WorkerStarted)
        listens = "select count(*) from pg_stat_activity where query like 'listen%' and datname = "
        found = f"{listens} current_database()"
        await asyncio.to_thread(until, lambda: value(database, found) == 1)
        yield
    finally:
        worker.stop("the test is over")
        await running


async def test_a_job_wakes_an_idle_worker(
    sleepy: PgQueue, database: str, recorder: Recorder
) -> None:
    async with asleep(sleepy, database, recorder):
        await asyncio.to_thread(sleepy.enqueue, "noop")
        await recorder.await_(JobStarted)


async def test_a_job_in_the_callers_transaction_wakes_a_worker_at_its_commit(
    sleepy: PgQueue, database: str, recorder: Recorder
) -> None:
    async with asleep(sleepy, database, recorder):
        async with await psycopg.AsyncConnection.connect(database) as connection:
            job = await sleepy.aenqueue("noop", connection=connection)
            many = sleepy.tasks.get("noop").using(connection=connection)
            await many.aenqueue_many([{}] * 150)
        await recorder.await_(JobStarted, where=lambda event: event.job_id == job.id)


async def test_a_job_from_sql_wakes_a_worker(
    sleepy: PgQueue, database: str, recorder: Recorder
) -> None:
    async with asleep(sleepy, database, recorder):
        await asyncio.to_thread(rows, database, "select pgqueue.enqueue('noop')")
        await recorder.await_(JobStarted)


async def test_a_delayed_job_is_started_when_it_is_due(
    sleepy: PgQueue, database: str, recorder: Recorder
) -> None:
    async with asleep(sleepy, database, recorder):
        await asyncio.to_thread(sleepy.enqueue, "noop", delay=0.7)
        await recorder.await_(JobStarted)
    late = "select extract(epoch from started_at - scheduled_at) from pgqueue.finished_jobs"
    assert 0 <= value(database, late) < 2


async def test_without_hints_a_worker_looks_by_itself(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_NOTIFY", "false")
    monkeypatch.setenv("PGQUEUE_POLL_INTERVAL", "0.2")
    app = PgQueue(database)
    app.task(name="noop")(_noop)
    worker = app.worker(concurrency=2, shutdown_timeout=0.0, scheduler=False)
    running = asyncio.create_task(worker.run())
    await recorder.await_(WorkerStarted)
    await asyncio.to_thread(app.enqueue, "noop")
    await recorder.await_(JobStarted)
    listening = "select count(*) from pg_stat_activity where query like 'listen%' and datname = "
    assert value(database, f"{listening} current_database()") == 0
    worker.stop("the test is over")
    await running
    app.close()


async def test_a_listener_hears_what_concerns_it_and_comes_back(database: str) -> None:
    heard: list[str] = []
    listener = Listener(
        "pgqueue",
        ["mail"],
        lambda: database,
        wake=lambda queue: heard.append(queue or "work"),
        wake_scheduler=lambda: heard.append("schedules"),
        wake_deliveries=lambda: heard.append("events"),
    )
    running = asyncio.create_task(listener.run())
    try:
        await asyncio.to_thread(until, lambda: heard == ["work", "schedules", "events"])
        _say(database, "other", SCHEDULES, "mail", EVENTS, "")
        await asyncio.to_thread(until, lambda: len(heard) == 7)
        assert heard[3:] == ["schedules", "mail", "events", "work"]
        rows(
            database,
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen%' "
            "and datname = current_database()",
        )
        await asyncio.to_thread(until, lambda: heard[7:] == ["work", "work", "schedules", "events"])
        assert listener.is_listening
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert not listener.is_listening


def _say(database: str, *payloads: str) -> None:
    for payload in payloads:
        rows(database, "select pg_notify('pgqueue', %s)", [payload])


def test_a_stream_of_jobs_rings_now_and_then(pgq: PgQueue, database: str) -> None:
    bell = Bell(pgq.sql, "pgqueue")
    new = NewJob("noop", "default", {})
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("listen pgqueue")
        for _ in range(500):
            run(connection, bell.after(_nothing(), new))
        heard = len(list(connection.notifies(timeout=0.5, stop_after=500)))
    assert 1 <= heard < 500
    assert FIRST_REST <= RING_EVERY, "a woken worker looks again before the next hint may come"


def test_a_job_that_is_due_much_later_wakes_nobody(pgq: PgQueue, database: str) -> None:
    bell = Bell(pgq.sql, "pgqueue")
    assert bell.within(NewJob("noop", "default", {}, delay=60.0)) is None
    assert bell.within(NewJob("noop", "default", {}, delay=1.0)) == "pgqueue"


def test_a_hint_that_fails_does_not_look_like_a_failed_enqueue(
    pgq: PgQueue, database: str, recorder: Recorder
) -> None:
    bell = Bell(pgq.sql, "far too long for the name of a channel " * 5)
    with psycopg.connect(database, autocommit=True) as connection:
        assert run(connection, bell.after(_nothing(), NewJob("noop", "default", {}))) == "done"
    assert [event.duty for event in recorder.of(DutyFailed)] == ["notify"]


def _nothing() -> Any:
    return "done"
    yield

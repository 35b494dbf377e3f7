"""Idle workers sleep long and are woken by a hint; without one they look by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.run import Statement, run
from pgqueue.engine.notify import EVENTS, RING_EVERY, SCHEDULES, Bell
from pgqueue.events import (
    ConnectionLost,
    ConnectionRestored,
    DutyFailed,
    JobStarted,
    WorkerStarted,
)
from pgqueue.job import NewJob
from pgqueue.worker.link import Link, LinkDown
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
        # The connection that looks listens from its first moment on.
        await asyncio.to_thread(until, lambda: _is_running(database, "from lanes", "idle"))
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
    worker.stop("the test is over")
    await running
    app.close()


class Heard(list[str]):
    """A link that listens, and what it heard."""

    def __init__(self, database: str) -> None:
        self.listener = Listener(
            "pgqueue",
            ["mail"],
            wake=lambda queue: self.append(queue or "work"),
            wake_scheduler=lambda: self.append("schedules"),
            wake_deliveries=lambda: self.append("events"),
        )
        self.link = Link("claims", lambda: database, ear=self.listener)

    async def ask(self, text: str = "select 1") -> None:
        await self.link.ask(Statement(text))

    async def until(self, *said: str) -> None:
        """What was said, all of it and in this order, was heard; forgotten then."""
        await asyncio.to_thread(until, lambda: len(self) >= len(said))
        assert tuple(self) == said
        self.clear()


@pytest.fixture
async def heard(database: str) -> AsyncIterator[Heard]:
    heard = Heard(database)
    await heard.ask()
    await heard.until("work", "schedules", "events")
    yield heard
    await heard.link.close()


async def test_an_idle_link_hears_what_concerns_it(database: str, heard: Heard) -> None:
    channels = Statement("select * from pg_listening_channels()")
    assert await heard.link.ask(channels) == [[("pgqueue",)]]
    assert heard.listener.is_listening
    _say(database, "other", SCHEDULES, "mail", EVENTS, "")
    await heard.until("schedules", "mail", "events", "work")


async def test_what_is_said_during_a_statement_is_heard(database: str, heard: Heard) -> None:
    asking = asyncio.create_task(heard.ask("select pg_sleep(0.3)"))
    await asyncio.to_thread(until, lambda: _is_running(database, "pg_sleep"))
    await asyncio.to_thread(_say, database, "mail")
    await asking
    await heard.until("mail")


async def test_what_comes_right_behind_an_answer_is_heard(heard: Heard) -> None:
    # Read with it, so the socket does not tell of it: its own connection speaks, many times.
    for _ in range(50):
        await heard.ask("select pg_notify('pgqueue', 'mail')")
        await heard.until("mail")


async def test_a_link_that_was_cut_while_idle_tells_so_and_listens_again(
    database: str, heard: Heard, recorder: Recorder
) -> None:
    await asyncio.to_thread(_cut_listeners, database)
    await heard.until("work")
    assert not heard.listener.is_listening
    assert [event.part for event in recorder.of(ConnectionLost)] == ["claims"]
    await heard.ask()
    await heard.until("work", "schedules", "events")
    assert [event.part for event in recorder.of(ConnectionRestored)] == ["claims"]
    _say(database, "mail")
    await heard.until("mail")


async def test_a_link_that_was_cut_in_a_statement_listens_again(
    database: str, heard: Heard
) -> None:
    asking = asyncio.create_task(heard.ask("select pg_sleep(30)"))
    await asyncio.to_thread(until, lambda: _is_running(database, "pg_sleep"))
    await asyncio.to_thread(_cut, database, "pg_sleep")
    with pytest.raises(LinkDown):
        await asking
    await heard.until("work")
    assert not heard.listener.is_listening
    await heard.ask()
    await heard.until("work", "schedules", "events")


async def test_a_cancelled_statement_leaves_no_ear_on_a_closed_socket(
    database: str, heard: Heard
) -> None:
    asking = asyncio.create_task(heard.ask("select pg_sleep(30)"))
    await asyncio.to_thread(until, lambda: _is_running(database, "pg_sleep"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await heard.ask()
    heard.clear()
    await asyncio.to_thread(_say, database, "mail")
    await heard.until("mail")


async def test_a_closed_link_hears_nothing(database: str, heard: Heard) -> None:
    await heard.link.close()
    await heard.until("work")
    assert not heard.listener.is_listening
    sessions = "select count(*) from pg_stat_activity where application_name = 'pgqueue'"
    ours = f"{sessions} and datname = current_database()"
    await asyncio.to_thread(until, lambda: value(database, ours) == 0)


async def test_without_a_channel_a_link_does_not_listen(database: str) -> None:
    heard = Heard(database)
    heard.listener.channel = None
    channels = Statement("select count(*) from pg_listening_channels()")
    assert await heard.link.ask(channels) == [[(0,)]]
    assert not heard
    assert not heard.listener.is_listening
    await heard.link.close()


async def test_a_server_that_does_not_let_us_listen_is_asked_now_and_then(
    database: str, recorder: Recorder
) -> None:
    heard = Heard(database)
    heard.listener.channel = ""  # no name for a channel
    await heard.ask()
    await heard.ask()
    assert [event.duty for event in recorder.of(DutyFailed)] == ["listen"]
    assert not heard.listener.is_listening
    await heard.link.close()


async def test_an_idle_worker_that_was_cut_off_looks_and_listens_again(
    sleepy: PgQueue, database: str, recorder: Recorder
) -> None:
    async with asleep(sleepy, database, recorder):
        await asyncio.to_thread(_cut_listeners, database)
        await recorder.await_(ConnectionRestored, where=lambda event: event.part == "claims")
        await asyncio.to_thread(sleepy.enqueue, "noop")
        await recorder.await_(JobStarted)


def _cut_listeners(database: str) -> None:
    _cut(database, "")


def _cut(database: str, text: str) -> None:
    """End the sessions that said `listen` and, last, a statement with this text."""
    assert rows(
        database,
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
        "and datname = current_database() and position(%s in query) > 0 and application_name = "
        "'pgqueue' and backend_type = 'client backend'",
        [text],
    )


def _is_running(database: str, text: str, state: str = "active") -> bool:
    return bool(
        value(
            database,
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and state = %s and position(%s in query) > 0",
            [state, text],
        )
    )


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

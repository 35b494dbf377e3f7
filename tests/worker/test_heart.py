"""The heart beats whatever the loop does, and fences before others may rescue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgqueue import Job, PgQueue
from pgqueue.errors import DatabaseUnreachable
from pgqueue.events import (
    ConnectionLost,
    ConnectionRestored,
    JobEnded,
    JobsClaimed,
    JobStarted,
    LoopStalled,
    WorkerFenced,
)
from pgqueue.worker import heart as heart_module
from pgqueue.worker.heart import Heart
from proving import Recorder, rows, until, value

INTERVAL, TIMEOUT = 3.0, 15.0


class Body:
    """A worker that only listens to its heart."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.declared = 0
        self.stuck = False
        self.proven = 0.0

    def worker_id(self) -> int:
        return 1

    def started_ids(self) -> list[int]:
        return []

    def loop_silence(self) -> float:
        return 0.0

    def is_stuck(self) -> bool:
        return self.stuck

    def proven_until(self, moment: float) -> None:
        self.proven = moment

    def fence(self, silent_seconds: float) -> None:
        self.told.append(f"fence after {silent_seconds:.0f} s")

    def unfence(self) -> None:
        self.told.append("unfence")

    def declared_dead(self) -> None:
        self.declared += 1
        if self.declared == 1:
            raise DatabaseUnreachable("x", "away again")
        self.told.append("declared dead")


class Time:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(heart_module, "time", moved)
    return moved


def _close(heart: Heart) -> None:
    assert heart._connection is not None
    heart._connection.close()


def _heart(pgq: PgQueue, body: Body) -> Heart:
    return Heart(body, pgq.sql, pgq.conninfo, interval=INTERVAL, timeout=TIMEOUT)


@pytest.fixture
def row(database: str) -> Iterator[None]:
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency) "
        "values (1, 'h', 1, '1', '{}', 1)",
    )
    yield
    rows(database, "delete from pgqueue.workers")


def test_a_worker_that_is_stuck_beyond_the_time_of_its_jobs_is_given_up(
    database: str, pgq: PgQueue, row: None, moved: Time
) -> None:
    body = Body()
    heart = _heart(pgq, body)
    heart.beat_once()
    assert body.proven == moved.now + TIMEOUT - 2 * INTERVAL
    beaten = value(database, "select heartbeat_at from pgqueue.workers")
    body.stuck = True
    while moved.now < 1000 + TIMEOUT:
        heart.beat_once()
        moved.now += INTERVAL
    assert value(database, "select heartbeat_at from pgqueue.workers") == beaten
    assert body.told == ["fence after 9 s"]
    body.stuck = False
    heart.beat_once()
    assert value(database, "select heartbeat_at from pgqueue.workers") > beaten
    assert body.told == ["fence after 9 s", "unfence"]
    _close(heart)


async def test_a_blocked_loop_is_stuck_once_every_running_job_had_its_time(pgq: PgQueue) -> None:
    seen: list[bool] = []

    def look() -> None:
        for seconds in (0, 4, 4):
            worker._loop_seen -= seconds
            seen.append(worker.is_stuck())

    @pgq.task(timeout=0.5)
    async def limited() -> None:
        look()

    @pgq.task
    async def unlimited() -> None:
        look()

    for task in (limited, unlimited):
        task.enqueue()
        worker = pgq.worker(burst=True, scheduler=False, concurrency=1)
        await asyncio.wait_for(worker.run(), 30)
    assert seen == [False, False, True, False, False, False]


def test_while_the_database_is_away_the_worker_fences_before_its_rescue_and_recovers_after(
    pgq: PgQueue, row: None, moved: Time, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    body = Body()
    heart = _heart(pgq, body)
    real = heart_module.connect

    def away(conninfo: str) -> Any:
        raise DatabaseUnreachable("db", "away")

    monkeypatch.setattr(heart_module, "connect", away)
    while moved.now < 1000 + TIMEOUT:
        heart.beat_once()
        moved.now += INTERVAL
    assert body.told == ["fence after 9 s"], "two intervals before others may rescue, and once"
    assert len(recorder.of(ConnectionLost)) == 1

    monkeypatch.setattr(heart_module, "connect", real)
    heart.beat_once()
    assert body.told == ["fence after 9 s", "unfence"]
    assert recorder.of(ConnectionRestored)[0].seconds == TIMEOUT
    heart._connection.close()  # type: ignore[union-attr]


def test_a_beat_that_hangs_is_fenced_from_outside(
    database: str, pgq: PgQueue, row: None, moved: Time
) -> None:
    """As in a dead network, or behind a lock on its row: the thread cannot say so itself."""
    body = Body()
    heart = _heart(pgq, body)
    with psycopg.connect(database) as holder:
        holder.execute("select from pgqueue.workers for update")
        beating = threading.Thread(target=heart.beat_once)
        beating.start()
        moved.now += TIMEOUT - 2 * INTERVAL - 0.1
        heart.check()
        assert body.told == []
        moved.now += 0.2
        heart.check()
        heart.check()
        assert body.told == ["fence after 9 s"]
        holder.rollback()
        beating.join(10)
    heart._connection.close()  # type: ignore[union-attr]


async def test_a_handler_that_blocks_the_loop_is_told_and_the_heart_beats_on(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_INTERVAL", "0.1")
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_TIMEOUT", "60")
    pgq = PgQueue(database)
    beats: list[Any] = []

    @pgq.task
    async def block(job: Job) -> None:
        stalled = threading.Event()
        look = "select heartbeat_at, started_jobs from pgqueue.workers"
        beats.extend(rows(database, look))
        recorder.wait(LoopStalled)
        until(lambda: rows(database, look)[0][1] == [job.id])
        beats.extend(rows(database, look))
        assert not stalled.is_set()

    job_id = block.enqueue().id
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    pgq.close()
    assert recorder.of(JobEnded)[0].state == "completed"
    assert beats[1][0] > beats[0][0]
    assert beats[1][1] == [job_id]
    assert recorder.of(WorkerFenced) == []


async def test_a_worker_declared_dead_goes_on_under_a_new_id(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_INTERVAL", "0.1")
    pgq = PgQueue(database)

    @pgq.task
    async def hang(job: Job) -> None:
        if job.attempt == 1:
            await asyncio.Event().wait()

    job_id = hang.enqueue().id
    worker = pgq.worker(scheduler=False)
    running = asyncio.create_task(worker.run())
    (started,) = await recorder.await_(JobStarted)
    first = worker.worker_id()
    # As rescue by another worker does it; the job is due when the beat has met the missing row.
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null, "
        "run_at = '9000-01-01' where id = %s",
        [started.job_id],
    )
    rows(database, "delete from pgqueue.workers")
    await asyncio.to_thread(until, lambda: worker.worker_id() != first)
    rows(database, "update pgqueue.jobs set run_at = now() where id = %s", [started.job_id])
    await recorder.await_(JobEnded, where=lambda event: event.job_id == job_id)
    worker.stop()
    await asyncio.wait_for(running, 20)
    pgq_job = pgq.get_job(job_id)
    pgq.close()
    assert (pgq_job.state, pgq_job.attempt) == ("completed", 2)
    assert worker.worker_id() != first
    assert pgq_job.worker_id == worker.worker_id()


async def test_a_worker_with_slow_jobs_holds_no_more_than_its_slots_and_a_little(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    let_go = asyncio.Event()

    @pgq.task
    async def slow() -> None:
        await let_go.wait()

    slow.enqueue_many([{}] * 100)
    worker = pgq.worker(scheduler=False, concurrency=4)
    running = asyncio.create_task(worker.run())
    await recorder.await_(JobStarted, count=4)
    await asyncio.sleep(0.3)  # time to take more, if it would
    assert value(database, "select count(*) from pgqueue.jobs where state = 'running'") == 4
    worker.stop()
    let_go.set()
    await asyncio.wait_for(running, 20)


async def test_jobs_fetched_ahead_that_find_no_slot_are_given_back(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    """Quick jobs made the worker fetch ahead; then slow ones took its slots."""
    let_go = asyncio.Event()

    @pgq.task
    async def quick() -> None: ...

    @pgq.task
    async def slow() -> None:
        await let_go.wait()

    quick.enqueue_many([{}] * 3000)
    slow.enqueue_many([{}] * 200)
    worker = pgq.worker(scheduler=False, concurrency=4)
    running = asyncio.create_task(worker.run())
    slow_started = {"where": lambda event: event.task == "slow", "count": 4}
    await recorder.await_(JobStarted, **slow_started)
    assert max(len(event.job_ids) for event in recorder.of(JobsClaimed)) > 4, (
        "fetched nothing ahead"
    )
    began = time.monotonic()
    # Not the 4 alone: a batch may have ended just there, and the next one is fetched after it.
    given_back = worker._hand.tally
    await asyncio.to_thread(until, lambda: given_back.handed_back > 0)
    held = "select count(*) from pgqueue.jobs where state = 'running'"
    await asyncio.to_thread(until, lambda: value(database, held) == 4)
    assert time.monotonic() - began < 4
    assert value(database, "select max(attempt) from pgqueue.jobs where state = 'queued'") == 0
    worker.stop()
    let_go.set()
    await asyncio.wait_for(running, 20)
    assert value(database, "select count(*) from pgqueue.jobs where state = 'running'") == 0


def test_the_heart_outlives_a_failed_registration(database: str, pgq: PgQueue, moved: Time) -> None:
    """Its row is gone and the database goes away while it asks for a new one."""
    body = Body()
    heart = Heart(body, pgq.sql, pgq.conninfo, interval=0.01, timeout=TIMEOUT)
    heart.start()
    until(lambda: body.told[-1:] == ["declared dead"])
    heart.stop()

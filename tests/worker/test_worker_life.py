"""A worker's own life, from start to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgqueue import PgQueue, State
from pgqueue.events import WorkerStarted, WorkerStopping
from pgqueue.worker.service import Worker
from pgqueue.worker.shutdown import StopSign
from proving import Recorder, value


async def test_a_worker_told_to_stop_before_it_has_started_leaves_at_once(pgq: PgQueue) -> None:
    @pgq.task
    async def noop() -> None: ...

    job = noop.enqueue()
    worker = pgq.worker()
    worker.stop("changed our mind")
    await worker.run()

    assert pgq.get_job(job.id).state is State.QUEUED
    with pgq.connection() as connection:
        assert connection.execute("select count(*) from pgqueue.workers").fetchone() == (0,)


async def test_a_signal_between_the_entry_and_the_first_claim_is_an_ordinary_end(
    database: str, pgq: PgQueue, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = Worker._enter

    def enter_and_meet_a_signal(worker: Worker) -> None:
        enter(worker)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Worker, "_enter", enter_and_meet_a_signal)
    await asyncio.wait_for(pgq.worker().run(), 20)
    assert [event.reason for event in recorder.of(WorkerStopping)] == ["SIGTERM"]
    assert value(database, "select count(*) from pgqueue.workers") == 0


async def test_another_thread_may_stop_a_worker_that_sleeps(
    pgq: PgQueue, recorder: Recorder
) -> None:
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    await recorder.await_(WorkerStarted)
    await asyncio.to_thread(worker.stop, "from a thread")
    await asyncio.wait_for(running, 20)
    assert [event.reason for event in recorder.of(WorkerStopping)] == ["from a thread"]


def test_stopping_a_worker_that_has_left_does_nothing(pgq: PgQueue, recorder: Recorder) -> None:
    worker = pgq.worker(burst=True)
    asyncio.run(worker.run())
    worker.stop("late")
    late = threading.Thread(target=worker.stop, args=["later"])
    late.start()
    late.join()
    assert [event.reason for event in recorder.of(WorkerStopping)] == ["nothing left to do"]


def test_a_worker_runs_in_a_thread_with_an_event_loop_of_its_own(
    pgq: PgQueue, recorder: Recorder
) -> None:
    """Signals reach the main thread alone; what it does at one is its own affair."""
    worker = pgq.worker()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, worker.run())
        recorder.wait(WorkerStarted)
        worker.stop("from outside")
        running.result(20)
    assert [event.reason for event in recorder.of(WorkerStopping)] == ["from outside"]


async def test_a_stop_from_a_thread_in_the_moment_in_which_the_worker_starts_is_heeded() -> None:
    half_way, go_on = threading.Event(), threading.Event()

    def on_raised() -> None:
        half_way.set()
        go_on.wait(20)

    sign = StopSign(on_raised)
    other = threading.Thread(target=sign.raise_, args=["early"])
    other.start()
    half_way.wait(20)
    threading.Timer(0.1, go_on.set).start()
    sign.belongs_here()
    work = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.wait_for(sign.until_raised(work), 10)
    work.cancel()
    assert sign.reason == "early"

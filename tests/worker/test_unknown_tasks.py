"""Due jobs that nobody's worker knows are told, by whoever looks after their queue."""

from __future__ import annotations

import asyncio

import pytest

from endings import worker as live_worker
from pgqueue import PgQueue
from pgqueue.events import TasksUnknown, WorkerStats
from pgqueue.observe.log import line_of
from proving import Recorder, rows


def waiting(url: str, task: str, count: int, queue: str = "default") -> None:
    """So many due jobs of a task that this app does not have."""
    rows(
        url,
        "select pgqueue.enqueue(%s, queue => %s) from generate_series(1, %s)",
        [task, queue, count],
    )


async def test_a_burst_worker_says_at_its_end_what_it_left_behind(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task
    async def known() -> None: ...

    known.enqueue()
    waiting(database, "report", 2)
    waiting(database, "send", 1, queue="email")
    rows(database, "select pgqueue.enqueue('later', delay => '1 hour')")

    await asyncio.wait_for(pgq.worker(burst=True).run(), 30)

    (told,) = recorder.of(TasksUnknown)
    assert told.jobs == (("report", 2), ("send", 1))
    assert line_of(told) == (
        "warning",
        "due jobs wait for tasks that no live worker knows: report (2), send (1)",
    )


async def test_only_its_own_queues_count_and_only_what_no_live_worker_knows(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    waiting(database, "report", 2)
    waiting(database, "send", 3, queue="email")
    live_worker(database, queues=["default"], tasks=["report"])

    await asyncio.wait_for(pgq.worker(burst=True, queues=["default"]).run(), 30)
    assert recorder.of(TasksUnknown) == []

    live_worker(database, tasks=["send"], silent=60)
    await asyncio.wait_for(pgq.worker(burst=True, queues=["email"]).run(), 30)
    assert [event.jobs for event in recorder.of(TasksUnknown)] == [(("send", 3),)]


async def test_a_worker_says_it_at_its_start_once_and_its_regular_line_mentions_it(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_STATS_INTERVAL", "0.2")
    pgq = PgQueue(database)
    waiting(database, "report", 2)
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    lines = await recorder.await_(WorkerStats, count=2)
    worker.stop()
    await running
    pgq.close()

    assert [event.jobs for event in recorder.of(TasksUnknown)] == [(("report", 2),)]
    assert lines[-1].unknown_tasks == (("report", 2),)
    _, line = line_of(lines[-1]) or ("", "")
    assert line.endswith("; due jobs wait for tasks that no live worker knows: report (2)")


async def test_the_look_at_a_lane_ends_after_a_thousand_jobs(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    waiting(database, "report", 1_200)
    await asyncio.wait_for(pgq.worker(burst=True).run(), 30)
    (told,) = recorder.of(TasksUnknown)
    assert told.jobs == (("report", 1_000),)

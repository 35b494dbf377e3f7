"""A slot runs one job after another; no job sees what the one before it left behind."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pgqueue import PgQueue
from pgqueue.engine.claim import ClaimedJob
from pgqueue.job import Requeued
from pgqueue.worker import slots as slots_module
from pgqueue.worker.hand import Hand
from pgqueue.worker.pace import Pace
from pgqueue.worker.slots import Slots
from proving import rows

SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("SEEN", default="nothing")


async def _drained(pgq: PgQueue) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, concurrency=1).run(), 30)


async def test_a_context_variable_that_a_handler_sets_does_not_reach_the_next_job(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def look() -> str:
        before = SEEN.get()
        SEEN.set("left by another job")
        return before

    look.enqueue_many([{}] * 20)
    await _drained(pgq)
    assert rows(database, "select distinct result from pgqueue.finished_jobs") == [("nothing",)]


async def test_a_handler_that_cancels_its_own_task_harms_no_other_job(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    @pgq.task
    async def waits() -> None:
        await asyncio.sleep(0)

    for _ in range(5):
        cancels_itself.enqueue()
        waits.enqueue()
    await _drained(pgq)
    ended = "select task, state, count(*), max(attempt) from pgqueue.finished_jobs group by 1, 2"
    assert ("waits", "completed", 5, 1) in rows(database, ended)


async def test_a_handler_that_cancels_itself_and_waits_has_failed(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    cancels_itself.enqueue()
    await _drained(pgq)
    found = "select state, attempt, errors -> 0 ->> 'type' from pgqueue.finished_jobs"
    assert rows(database, found) == [("failed", 1, "CancelledError")]


NO_BATCHES: Any = SimpleNamespace(tasks=frozenset())


class _Runner:
    """Ends each job at once, without ever waiting."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.lingering: set[Any] = set()
        self.on_late_end: Callable[[], None] = lambda: None

    async def run(self, job: ClaimedJob) -> None:
        self.ran.append(job.id)


async def test_a_thread_that_cannot_be_stopped_keeps_its_slot_and_costs_nothing_meanwhile() -> None:
    runner, hand = _Runner(), Hand()
    slots = Slots(runner, hand, Pace(1, 0.0), 1, NO_BATCHES)  # type: ignore[arg-type]  # a stand-in
    runner.lingering.add("a thread of a job that has ended")
    hand.waiting.append(_job(1))
    slots.fill()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "slot"]
    runner.lingering.clear()
    runner.on_late_end()
    await asyncio.sleep(0)
    assert runner.ran == [1]


async def test_what_waits_in_a_worker_that_slept_too_long_is_not_begun() -> None:
    runner, hand = _Runner(), Hand()
    slots = Slots(runner, hand, Pace(1, 0.0), 1, NO_BATCHES)  # type: ignore[arg-type]  # a stand-in
    hand.waiting.extend([_job(1), _job(2)])
    # Frozen before they began: by now others may have taken their leases.
    hand.proven_until = time.monotonic() - 1
    slots.fill()
    await asyncio.sleep(0)
    assert runner.ran == []
    assert [(ended.job_id, type(ended)) for ended in hand.ended] == [(1, Requeued), (2, Requeued)]


def _job(job_id: int) -> ClaimedJob:
    return ClaimedJob._make([job_id, "t", "q", 5, "{}", *[None] * 3, 0, 0, 1, 1, 1, 1, 0, 0,
                             *[None] * 4, 0, False, None])  # fmt: skip


async def test_handlers_that_never_wait_leave_turns_to_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(slots_module.time, "monotonic", lambda: next(ticks) / 1_000)
    runner, hand = _Runner(), Hand()
    slots = Slots(runner, hand, Pace(100, 0.0), 100, NO_BATCHES)  # type: ignore[arg-type]  # a stand-in
    hand.waiting.extend(_job(number) for number in range(2_000))
    slots.fill()
    turns: list[int] = []
    while hand.waiting or hand.running:
        before = len(runner.ran)
        await asyncio.sleep(0)
        turns.append(len(runner.ran) - before)
    assert runner.ran == list(range(2_000))
    assert max(turns) <= 1 + slots_module.TURN * 1_000, "at most a turn's worth at a time"

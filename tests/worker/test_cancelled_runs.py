"""Whoever runs a worker as a part of a program may cancel it: it leaves, and nothing goes on."""

from __future__ import annotations

import asyncio
import math

from pgqueue import PgQueue
from pgqueue.worker.upkeep import Duty, Upkeep
from proving import rows, states, until


async def _cancelled(run: asyncio.Task[None]) -> None:
    run.cancel()
    await asyncio.wait([run], timeout=20)
    assert run.cancelled(), "the worker did not heed the cancellation"


def _of_the_worker() -> list[str]:
    names = {"claims", "writer", "upkeep", "listener", "loop-watch", "burst", "slot"}
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() in names]


async def test_a_cancelled_worker_hands_back_and_leaves_nothing_behind(
    database: str, pgq: PgQueue
) -> None:
    begun = asyncio.Event()

    @pgq.task
    async def long() -> None:
        begun.set()
        await asyncio.sleep(60)

    long.enqueue()
    run = asyncio.create_task(pgq.worker(scheduler=False).run())
    await asyncio.wait_for(begun.wait(), 20)
    await _cancelled(run)
    assert rows(database, "select state, attempt from pgqueue.jobs") == [("queued", 0)]
    assert rows(database, "select id from pgqueue.workers") == []
    assert _of_the_worker() == []


async def test_a_cancelled_worker_claims_nothing_more(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def noop() -> None: ...

    noop.enqueue()
    run = asyncio.create_task(pgq.worker(scheduler=False).run())
    await asyncio.to_thread(until, lambda: states(database) == {"completed": 1})
    await _cancelled(run)
    noop.enqueue()
    for _ in range(20):
        await asyncio.sleep(0.02)
    assert states(database) == {"completed": 1, "queued": 1}


async def test_a_duty_that_is_asked_for_in_the_moment_of_a_cancellation_does_not_undo_it() -> None:
    upkeep = Upkeep([Duty("rare", 60.0, _at_once, due=math.inf)], _at_once)
    run = asyncio.create_task(upkeep.run())
    for _ in range(3):
        await asyncio.sleep(0)
    upkeep.hurry("rare")
    await asyncio.sleep(0)
    run.cancel()
    await asyncio.wait([run], timeout=2)
    assert run.cancelled()


async def _at_once() -> None: ...

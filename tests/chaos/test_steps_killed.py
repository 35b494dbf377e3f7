"""Handlers die in the middle of their steps: what is behind them stays behind them."""

from __future__ import annotations

import asyncio

import pytest
from dying_handler import five_steps

from pgqueue import PgQueue, Retry
from proving import rows, states, value

EFFECTS = "create table effects (job_id bigint, step int, attempt int)"
CRASHES = (
    "select count(*) from pgqueue.finished_jobs cross join jsonb_array_elements(errors) as error "
    "where error ->> 'reason' = 'crashed'"
)
AGAIN = "select job_id, step from effects where step % 2 = 0 group by 1, 2 having count(*) <> 1"
LATER = (
    "select effects.job_id from effects join pgqueue.job_steps as kept "
    "on kept.job_id = effects.job_id and kept.name = 'step-' || step "
    "where effects.attempt > kept.attempt"
)


async def _killed(database: str, pgq: PgQueue, jobs: int) -> int:
    """Let so many jobs end whose processes are killed; returns how often that happened."""
    rows(database, EFFECTS)
    task = pgq.task(isolation="process", retry=Retry(attempts=100, delays=[0]))(five_steps)
    task.enqueue_many([{"url": database}] * jobs)
    worker = pgq.worker(burst=True, scheduler=False, concurrency=3)
    await worker.run()
    assert states(database) == {"completed": jobs}
    assert value(database, "select count(*) from pgqueue.job_steps") == 5 * jobs
    assert rows(database, AGAIN) == [], "with its checkpoint in one commit: exactly once"
    assert value(database, "select count(distinct (job_id, step)) from effects") == 5 * jobs
    assert rows(database, LATER) == [], "a step was done again that had its checkpoint"
    results = "select distinct result from pgqueue.finished_jobs"
    assert rows(database, results) == [([0, 10, 20, 30, 40],)]
    return int(value(database, CRASHES))


async def test_a_few_kills_lose_no_step_and_repeat_none(database: str, pgq: PgQueue) -> None:
    assert await asyncio.wait_for(_killed(database, pgq, 2), 100) >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_hundred_kills_lose_no_step_and_repeat_none(database: str, pgq: PgQueue) -> None:
    kills = await asyncio.wait_for(_killed(database, pgq, 50), 800)
    repeated = value(database, "select count(*) - count(distinct (job_id, step)) from effects")
    print(f"{kills} kills, {repeated} effects repeated that had no checkpoint yet")  # noqa: T201
    assert kills >= 200
    assert repeated > 0, "no kill between an effect and its checkpoint proves nothing"

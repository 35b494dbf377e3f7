"""Batch handlers under limits: a call takes as many as are let in, and no more."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import BaseModel

from pgqueue import Limit, PgQueue
from proving import states


class Item(BaseModel):
    n: int


async def _burst(pgq: PgQueue) -> None:
    worker = pgq.worker(burst=True, concurrency=1, scheduler=False)
    await asyncio.wait_for(worker.run(), 60)


async def test_a_call_takes_as_many_as_its_limit_lets_in(pgq: PgQueue, database: str) -> None:
    calls: list[int] = []

    @pgq.task(batch=20, max_wait=0.2, limits=[Limit("ten", running=10)])
    async def embed(items: list[Item]) -> None:
        calls.append(len(items))

    embed.enqueue_many([{"n": n} for n in range(40)])
    await _burst(pgq)
    assert states(database) == {"completed": 40}
    assert max(calls) == 10
    assert pgq.check_limits() == []


async def test_a_call_has_one_job_of_each_order(pgq: PgQueue, database: str) -> None:
    calls: list[list[int]] = []

    @pgq.task(batch=20, max_wait=0.2, ordered_by="n:{n}")
    async def apply(items: list[Item]) -> None:
        calls.append([item.n for item in items])

    apply.enqueue_many([{"n": n} for n in range(5)] * 3)
    await _burst(pgq)
    assert states(database) == {"completed": 15}
    assert max(max(Counter(call).values()) for call in calls) == 1
    assert max(map(len, calls)) > 1


@pytest.mark.parametrize("caps", [{"running": 1}, {"starts": 1, "per": 0.2}])
async def test_a_limit_of_one_makes_calls_of_one(
    pgq: PgQueue, database: str, caps: dict[str, float]
) -> None:
    calls: list[int] = []

    @pgq.task(batch=20, limits=[Limit("one", **caps)])  # type: ignore[arg-type]  # as it is given
    async def embed(items: list[Item]) -> None:
        calls.append(len(items))

    embed.enqueue_many([{"n": n} for n in range(3)])
    await _burst(pgq)
    assert states(database) == {"completed": 3}
    assert calls == [1, 1, 1]
    assert pgq.check_limits() == []

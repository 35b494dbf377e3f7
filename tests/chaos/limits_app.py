"""Tasks under limits, for workers that are killed."""

from __future__ import annotations

import asyncio
import random

from pgqueue import Limit, PgQueue, Retry

pgq = PgQueue()


@pgq.task(limits=[Limit("five", running=5)])
async def work(n: int) -> None:
    await asyncio.sleep(random.uniform(0.02, 0.15))  # noqa: S311 - no secret


@pgq.task(limits=[Limit("ten", starts=10, per=1.0)])
async def rated(n: int) -> None:
    await asyncio.sleep(random.uniform(0.0, 0.05))  # noqa: S311 - no secret


@pgq.task(ordered_by="customer:{customer}", retry=Retry(attempts=3, delays=[0.02]))
async def step(customer: int, n: int) -> None:
    if random.random() < 0.2:  # noqa: S311 - no secret
        raise OSError("again")

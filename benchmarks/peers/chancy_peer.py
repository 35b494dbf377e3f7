"""Chancy. Settings: default (process executor, polls every 5 s); tuned (async executor, eager)."""

from __future__ import annotations

import asyncio
from typing import Any

from chancy import Chancy, Queue, Worker, job
from common import CONCURRENCY, DSN, SETTING, AsyncPeer, Payload, mark

TUNED: dict[str, Any] = {
    "executor": "chancy.executors.asyncex.AsyncExecutor",
    "polling_interval": 1,
    "eager_polling": True,
}
PLAIN: dict[str, Any] = {"executor": "chancy.executors.process.ProcessExecutor"}


@job(queue="q")
async def noop(*, n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


@job(queue="q")
async def sleep100(*, n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


TASKS = {"noop": noop, "sleep100": sleep100}


class ChancyPeer(AsyncPeer):
    async def migrate(self) -> None:
        async with Chancy(DSN) as chancy:
            await chancy.migrate()

    async def open(self) -> None:
        self._chancy = await Chancy(DSN).__aenter__()

    async def add(self, payload: Payload) -> None:
        await self._chancy.push(noop.job.with_kwargs(**payload))

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        jobs = [TASKS[task].job.with_kwargs(**payload) for payload in payloads]
        async for _ in self._chancy.push_many(jobs, batch_size=len(jobs)):
            pass

    async def work(self) -> None:
        options = PLAIN if SETTING == "default" else TUNED
        async with Chancy(DSN) as chancy:
            await chancy.declare(Queue("q", concurrency=CONCURRENCY, **options), upsert=True)
            async with Worker(chancy) as worker:
                await worker.wait_for_shutdown()


if __name__ == "__main__":
    import chancy_peer  # its handlers are looked up by the name of their module

    chancy_peer.ChancyPeer().main()

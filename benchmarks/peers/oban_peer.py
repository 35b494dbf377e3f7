"""Oban for Python (needs Python 3.12). Settings: default."""

from __future__ import annotations

import asyncio
from typing import Any

from common import CONCURRENCY, DSN, AsyncPeer, Payload, mark
from oban import Oban, worker
from oban.schema import install


@worker(queue="q")
class Noop:
    async def process(self, job: Any) -> None:
        mark(job.args.get("t"))


@worker(queue="q")
class Sleep100:
    async def process(self, job: Any) -> None:
        mark(job.args.get("t"))
        await asyncio.sleep(0.1)


TASKS = {"noop": Noop, "sleep100": Sleep100}


class ObanPeer(AsyncPeer):
    async def migrate(self) -> None:
        pool = await Oban.create_pool(DSN)
        await install(pool)
        await pool.close()

    async def open(self) -> None:
        self._oban = await Oban(pool=await Oban.create_pool(DSN)).start()

    async def add(self, payload: Payload) -> None:
        await self._oban.enqueue(Noop.new(payload))

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        await self._oban.enqueue_many(*[TASKS[task].new(payload) for payload in payloads])

    async def work(self) -> None:
        pool = await Oban.create_pool(DSN)
        async with Oban(pool=pool, queues={"q": CONCURRENCY}):
            await asyncio.Event().wait()


if __name__ == "__main__":
    ObanPeer().main()

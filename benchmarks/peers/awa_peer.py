"""awa. Settings: default; tuned (512 workers, 4 claimers, claims of 512)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import awa
from common import CONCURRENCY, DSN, SETTING, AsyncPeer, Payload, mark

TUNED = {"name": "q", "max_workers": 512, "claimers": 4, "claim_batch_size": 512}
QUEUES: list[Any] = [("q", CONCURRENCY)] if SETTING == "default" else [TUNED]


@dataclass
class Noop:
    n: int
    t: float = 0.0
    pad: str = ""


@dataclass
class Sleep100:
    n: int
    t: float = 0.0
    pad: str = ""


KINDS = {"noop": Noop, "sleep100": Sleep100}


class Awa(AsyncPeer):
    async def migrate(self) -> None:
        await awa.migrate(DSN)
        # Its storage engine becomes active when a worker starts for the first time.
        client = awa.AsyncClient(DSN)

        @client.task(Noop, queue="q")
        async def noop(job: Any) -> None: ...

        await client.start([("q", 1)])
        await client.shutdown()

    async def open(self) -> None:
        self._client = awa.AsyncClient(DSN)

    async def add(self, payload: Payload) -> None:
        await self._client.insert(Noop(**payload), queue="q")

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        kind = KINDS[task]
        await self._client.enqueue_many_copy([kind(**payload) for payload in payloads], queue="q")

    async def work(self) -> None:
        client = awa.AsyncClient(DSN)

        @client.task(Noop, queue="q")
        async def noop(job: Any) -> None:
            mark(job.args.t)

        @client.task(Sleep100, queue="q")
        async def sleep100(job: Any) -> None:
            mark(job.args.t)
            await asyncio.sleep(0.1)

        await client.start(QUEUES)
        await asyncio.Event().wait()


if __name__ == "__main__":
    Awa().main()

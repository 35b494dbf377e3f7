"""PgQueuer on asyncpg and uvloop.

Settings: default (batch of 10) and bN (batch of N): neither caps the running handlers, which is
its default; cap (as many handlers as the concurrency, and half a batch of that, its maximum).
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from common import CONCURRENCY, DSN, SETTING, AsyncPeer, Payload, mark
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

CAP = CONCURRENCY if SETTING == "cap" else None
BATCH = int(SETTING[1:]) if SETTING.startswith("b") else CONCURRENCY // 2 if CAP else 10


class Queuer(AsyncPeer):
    async def migrate(self) -> None:
        await self.open()
        await self._queries.install()

    async def open(self) -> None:
        self._queries = Queries(AsyncpgDriver(await asyncpg.connect(DSN)))

    async def add(self, payload: Payload) -> None:
        await self._queries.enqueue("noop", json.dumps(payload).encode())

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        count = len(payloads)
        encoded = [json.dumps(payload).encode() for payload in payloads]
        await self._queries.enqueue([task] * count, encoded, [0] * count)

    async def work(self) -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(DSN)))

        @queuer.entrypoint("noop")
        async def noop(job: Any) -> None:
            mark(json.loads(job.payload).get("t"))

        @queuer.entrypoint("sleep100")
        async def sleep100(job: Any) -> None:
            mark(json.loads(job.payload).get("t"))
            await asyncio.sleep(0.1)

        await queuer.run(
            batch_size=BATCH, max_concurrent_tasks=CAP, dequeue_timeout=timedelta(seconds=30)
        )


if __name__ == "__main__":
    uvloop.install()
    Queuer().main()

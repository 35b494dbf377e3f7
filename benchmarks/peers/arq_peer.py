"""arq on Redis. Settings: default (polls every 0.5 s); tuned (polls every 10 ms)."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker
from common import CONCURRENCY, REDIS, SETTING, AsyncPeer, Payload, mark

REDIS_SETTINGS = RedisSettings.from_dsn(REDIS)
AT_ONCE = 100


async def noop(context: Any, n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


async def sleep100(context: Any, n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


class Arq(AsyncPeer):
    async def open(self) -> None:
        self._pool = await create_pool(REDIS_SETTINGS)

    async def add(self, payload: Payload) -> None:
        await self._pool.enqueue_job("noop", **payload)

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        """It has no bulk call: a hundred at a time."""
        for start in range(0, len(payloads), AT_ONCE):
            part = payloads[start : start + AT_ONCE]
            await asyncio.gather(*(self._pool.enqueue_job(task, **p) for p in part))

    async def work(self) -> None:
        options = {} if SETTING == "default" else {"poll_delay": 0.01}
        handlers = [func(noop, keep_result=0), func(sleep100, keep_result=0)]
        worker = Worker(
            handlers,
            redis_settings=REDIS_SETTINGS,
            max_jobs=CONCURRENCY,
            handle_signals=False,
            **options,
        )
        await worker.async_run()


if __name__ == "__main__":
    Arq().main()

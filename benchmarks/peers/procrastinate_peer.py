"""Procrastinate. Settings: default; tuned (finished jobs are deleted, a bigger pool)."""

from __future__ import annotations

import asyncio
from typing import Any

from common import CONCURRENCY, DSN, SETTING, AsyncPeer, Payload, mark
from procrastinate import App, PsycopgConnector

TUNED = SETTING == "tuned"
# It has no batch claim; deleting what is done keeps the table small.
WORKER: dict[str, Any] = {"delete_jobs": "always"} if TUNED else {}

app = App(connector=PsycopgConnector(conninfo=DSN, min_size=1, max_size=20 if TUNED else 4))


@app.task(name="noop", queue="q")
async def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


@app.task(name="sleep100", queue="q")
async def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


TASKS = {"noop": noop, "sleep100": sleep100}


class Procrastinate(AsyncPeer):
    async def migrate(self) -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        await app.open_async()

    async def add(self, payload: Payload) -> None:
        await noop.defer_async(**payload)

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        await TASKS[task].batch_defer_async(*payloads)

    async def work(self) -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=CONCURRENCY, **WORKER)


if __name__ == "__main__":
    Procrastinate().main()

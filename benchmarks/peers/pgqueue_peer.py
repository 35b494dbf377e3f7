"""pgqueue.

Settings: default (its own pool, worker with every default), connection (enqueues on an open
connection), sync and sync-connection (the same from blocking code), cli and cli-N (the worker is
`pgq worker`, with N processes), poll (nobody rings: as behind a transaction pooler).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
from common import CONCURRENCY, DSN, LANES, SETTING, AsyncPeer, Payload, SyncPeer, in_turn, mark

from pgqueue import PgQueue

PGQ = str(Path(sys.executable).parent / "pgq")
ON_CONNECTION = SETTING.endswith("connection")
PRIORITIES = (2, 5, 8)

if SETTING == "poll":
    os.environ["PGQUEUE_NOTIFY"] = "false"
pgq = PgQueue(DSN)


@pgq.task
async def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


@pgq.task
async def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


if "worker" not in sys.argv:

    @pgq.task
    async def stranger(n: int, pad: str = "") -> None:
        """A task that no worker knows."""


def _migrate() -> None:
    environment = {**os.environ, "PGQUEUE_DATABASE_URL": DSN}
    subprocess.run([PGQ, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)


def _run_command() -> None:
    words = ["worker", "--app", "pgqueue_peer:pgq", "--concurrency", str(CONCURRENCY)]
    if processes := SETTING.removeprefix("cli").removeprefix("-"):
        words += ["--processes", processes]
    os.execv(PGQ, [PGQ, *words])


class Async(AsyncPeer):
    async def migrate(self) -> None:
        _migrate()

    async def open(self) -> None:
        self._options: dict[str, Any] = {}
        if ON_CONNECTION:
            connection = await psycopg.AsyncConnection.connect(DSN, autocommit=True)
            self._options = {"connection": connection}
        self._noop = noop.using(**self._options)

    async def add(self, payload: Payload) -> None:
        await self._noop.aenqueue(**payload)

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        chosen = pgq.tasks.get(task).using(**self._options)
        if not LANES:
            await chosen.aenqueue_many(payloads)
            return
        for number, part in enumerate(in_turn(payloads, LANES * len(PRIORITIES))):
            lane = chosen.using(
                queue=f"q{number // len(PRIORITIES)}", priority=PRIORITIES[number % 3]
            )
            await lane.aenqueue_many(part)

    async def work(self) -> None:
        if SETTING.startswith("cli"):
            _run_command()
        await pgq.worker(concurrency=CONCURRENCY).run()


class Sync(SyncPeer):
    def migrate(self) -> None:
        _migrate()

    def open(self) -> None:
        options = {"connection": psycopg.connect(DSN, autocommit=True)} if ON_CONNECTION else {}
        self._options = options
        self._noop = noop.using(**options)

    def add(self, payload: Payload) -> None:
        self._noop.enqueue(**payload)

    def add_many(self, task: str, payloads: list[Payload]) -> None:
        pgq.tasks.get(task).using(**self._options).enqueue_many(payloads)


if __name__ == "__main__":
    (Sync() if SETTING.startswith("sync") else Async()).main()

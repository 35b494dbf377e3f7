"""Not a product: the least that a queue in Python can do, on asyncpg and uvloop.

One table; COPY in, one statement to claim 500 jobs, one to delete those that ended, on two
connections that overlap. No retries, no priorities, no lease, no heartbeat, no log.
Settings: default (exactly as many handlers as the concurrency), free (no cap on handlers).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import uvloop
from common import CONCURRENCY, DSN, SETTING, AsyncPeer, Payload, mark

BATCH = 500
YIELD_EVERY = 50
TABLES = """
create table j (
  id bigint generated always as identity primary key,
  status smallint not null default 0,
  kind text not null,
  args text not null
) with (fillfactor = 80);
create index j_todo on j (id) where status = 0;
"""
CLAIM = """
with c as (select id from j where status = 0 order by id limit $1 for update skip locked)
update j set status = 1 from c where j.id = c.id returning j.id, kind, args
"""
INSERT = "with i as (insert into j (kind, args) values ('noop', $1)) select pg_notify('j', '')"


async def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


async def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


HANDLERS = {"noop": noop, "sleep100": sleep100}


class Bare(AsyncPeer):
    async def migrate(self) -> None:
        connection = await asyncpg.connect(DSN)
        await connection.execute(TABLES)
        await connection.close()

    async def open(self) -> None:
        self._connection = await asyncpg.connect(DSN)

    async def add(self, payload: Payload) -> None:
        await self._connection.execute(INSERT, json.dumps(payload))

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        rows = [(task, json.dumps(payload)) for payload in payloads]
        await self._connection.copy_records_to_table("j", columns=["kind", "args"], records=rows)
        await self._connection.execute("select pg_notify('j', '')")

    async def work(self) -> None:
        self._claims, self._finishes, listener = [await asyncpg.connect(DSN) for _ in range(3)]
        self._wake, self._low, self._flush = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._ended: list[int] = []
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()
        await listener.add_listener("j", lambda *_: self._wake.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._finish())
            group.create_task(self._claim())
            for _ in range(CONCURRENCY if SETTING == "default" else 0):
                group.create_task(self._consume())

    async def _finish(self) -> None:
        while True:
            await self._flush.wait()
            self._flush.clear()
            ended, self._ended = self._ended, []
            await self._finishes.execute("delete from j where id = any($1::bigint[])", ended)

    async def _claim(self) -> None:
        while True:
            self._wake.clear()
            rows = await self._claims.fetch(CLAIM, BATCH)
            if not rows:
                await self._until_woken()
            elif SETTING == "default":
                await self._hand_out(rows)
            else:
                self._start(rows)

    async def _until_woken(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), 2)
        except TimeoutError:
            return

    async def _hand_out(self, rows: list[Any]) -> None:
        for row in rows:
            self._waiting.put_nowait(row)
        self._low.clear()
        if self._waiting.qsize() >= BATCH:
            await self._low.wait()

    def _start(self, rows: list[Any]) -> None:
        for row in rows:
            task = asyncio.create_task(self._run(row))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _consume(self) -> None:
        while True:
            row = await self._waiting.get()
            left = self._waiting.qsize()
            if left < BATCH:
                self._low.set()
            if left % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
            await self._run(row)

    async def _run(self, row: Any) -> None:
        job_id, kind, arguments = row
        await HANDLERS[kind](**json.loads(arguments))
        self._ended.append(job_id)
        self._flush.set()


if __name__ == "__main__":
    uvloop.install()
    Bare().main()

"""Not a product: the least that a queue in Python on psycopg can do, the reference for ours.

One table; COPY in, one statement to claim 500 jobs, one to delete those that ended, on two
connections that overlap. No retries, no priorities, no lease, no heartbeat, no log.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any

import psycopg
from common import CONCURRENCY, DSN, AsyncPeer, Payload, mark

BATCH = 500
TURN = 0.002
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
with c as (select id from j where status = 0 order by id limit %s for update skip locked)
update j set status = 1 from c where j.id = c.id returning j.id, kind, args
"""
INSERT = "with i as (insert into j (kind, args) values ('noop', %s)) select pg_notify('j', '')"


async def noop(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)


async def sleep100(n: int, t: float | None = None, pad: str = "") -> None:
    mark(t)
    await asyncio.sleep(0.1)


HANDLERS = {"noop": noop, "sleep100": sleep100}


async def _connect() -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(DSN, autocommit=True, prepare_threshold=0)


class Bare(AsyncPeer):
    async def migrate(self) -> None:
        async with await _connect() as connection:
            await connection.execute(TABLES, prepare=False)

    async def open(self) -> None:
        self._connection = await _connect()

    async def add(self, payload: Payload) -> None:
        await self._connection.execute(INSERT, [json.dumps(payload)])

    async def add_many(self, task: str, payloads: list[Payload]) -> None:
        async with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy("copy j (kind, args) from stdin") as copy,
        ):
            for payload in payloads:
                await copy.write_row((task, json.dumps(payload)))
        await self._connection.execute("select pg_notify('j', '')")

    async def work(self) -> None:
        self._waiting: deque[Any] = deque()
        self._ended: list[int] = []
        self._work, self._low, self._flush = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._wake = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._claim())
            group.create_task(self._finish())
            for _ in range(CONCURRENCY):
                group.create_task(self._consume())

    async def _listen(self) -> None:
        connection = await _connect()
        await connection.execute("listen j", prepare=False)
        async for _ in connection.notifies():
            self._wake.set()

    async def _claim(self) -> None:
        connection = await _connect()
        cursor = connection.cursor(binary=True)
        while True:
            self._wake.clear()
            rows = await (await cursor.execute(CLAIM, [BATCH])).fetchall()
            self._waiting.extend(rows)
            self._work.set()
            self._low.clear()
            if rows and len(self._waiting) >= BATCH:
                await self._low.wait()
            elif not rows:
                await self._until_woken()

    async def _until_woken(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), 2)
        except TimeoutError:
            return

    async def _finish(self) -> None:
        connection = await _connect()
        cursor = connection.cursor(binary=True)
        while True:
            await self._flush.wait()
            self._flush.clear()
            ended, self._ended = self._ended, []
            await cursor.execute("delete from j where id = any(%s::bigint[])", [ended])

    async def _consume(self) -> None:
        turn_ends = 0.0
        while True:
            while self._waiting:
                job_id, kind, arguments = self._waiting.popleft()
                await HANDLERS[kind](**json.loads(arguments))
                self._ended.append(job_id)
                self._flush.set()
                if len(self._waiting) < BATCH:
                    self._low.set()
                if time.monotonic() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = time.monotonic() + TURN
            self._work.clear()
            await self._work.wait()


if __name__ == "__main__":
    Bare().main()

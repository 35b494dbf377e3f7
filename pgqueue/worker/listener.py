"""Hears NOTIFY and wakes the worker: work begins within milliseconds, and the polls can be rare.

A connection of its own, in autocommit, and only where it is a session of our own: behind a pooler
a LISTEN ends with its transaction, and polling alone has to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection

import psycopg
from psycopg import sql

from pgqueue.db.pools import aconnect, is_direct
from pgqueue.engine.notify import EVENTS, SCHEDULES
from pgqueue.errors import PgQueueError
from pgqueue.worker.link import FIRST_WAIT, LONGEST_WAIT

POOLED_WAIT = 60.0
"""Seconds until the next try where the connection was a pooler's."""


class Listener:
    """`run` until cancelled; `is_listening` says whether hints get through."""

    def __init__(
        self,
        channel: str | None,
        queues: Collection[str],
        conninfo: Callable[[], str],
        *,
        wake: Callable[[str], None],
        wake_scheduler: Callable[[], None],
        wake_deliveries: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._queues = frozenset(queues)
        self._conninfo = conninfo
        self._wake = wake
        self._wake_scheduler = wake_scheduler
        self._wake_deliveries = wake_deliveries
        self.is_listening = False

    async def run(self) -> None:
        """For ever; returns at once where hints are off."""
        wait = FIRST_WAIT
        while self._channel is not None:
            try:
                async with await aconnect(await asyncio.to_thread(self._conninfo)) as connection:
                    if is_direct(connection):
                        wait = FIRST_WAIT
                        await self._listen(connection, self._channel)
                    else:
                        wait = POOLED_WAIT
            # The claims' connection tells that the database is away; this one is a comfort.
            except (psycopg.Error, PgQueueError):
                pass
            finally:
                self.is_listening = False
            self._wake("")
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(max(wait, LONGEST_WAIT), wait * 2)

    async def _listen(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], channel: str
    ) -> None:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        self.is_listening = True
        # What was said before, nobody heard.
        self._wake("")
        self._wake_scheduler()
        self._wake_deliveries()
        async for heard in connection.notifies():
            if heard.payload == SCHEDULES:
                self._wake_scheduler()
            elif heard.payload == EVENTS:
                self._wake_deliveries()
            elif not (heard.payload and self._queues) or heard.payload in self._queues:
                self._wake(heard.payload)

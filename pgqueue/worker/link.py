"""A worker's own connection, which comes back by itself when Postgres does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from pgqueue.db.pools import aconnect, is_direct
from pgqueue.db.run import (
    Rows,
    Statement,
    Steps,
    arun,
    ask,
    ask_at_once,
    set_for_session,
    set_for_transaction,
)
from pgqueue.errors import PgQueueError
from pgqueue.events import ConnectionLost, ConnectionRestored, DutyFailed, emit
from pgqueue.worker.hearing import Ear, Hearing

T = TypeVar("T")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
"""Seconds between tries to reconnect; doubled each time, with jitter, for ever."""


class LinkDown(Exception):
    """The connection broke under a statement; whether it was committed is unknown."""


class Link:
    """One async connection for one part of the worker."""

    def __init__(
        self,
        part: str,
        conninfo: Callable[[], str],
        settings: Mapping[str, str] | None = None,
        ear: Ear | None = None,
    ) -> None:
        """`settings` of the server hold for what `ask` sends; `ear` is told what NOTIFY says."""
        self._part = part
        self._conninfo = conninfo
        self._settings = settings or {}
        self._ear = ear
        self._hearing: Hearing | None = None
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._lost_at: float | None = None
        self.opened = 0
        """How often a connection was made: it may have been to another server than the last."""

    async def execute(self, steps: Steps[T]) -> T:
        """Drive a verb; raises LinkDown when the connection broke under it.

        Not to be cancelled: a claim whose reply is thrown away stays `running` for nobody. Callers
        await it to its end, or close the link.
        """
        connection = await self._connected()
        if self._hearing is not None:
            self._hearing.pause()
        try:
            return await arun(connection, steps)
        except psycopg.Error as error:
            if not _is_gone(connection, error):
                raise
            await self.close()
            self._note_lost(str(error))
            raise LinkDown(str(error)) from error
        finally:
            if self._hearing is not None and connection.closed:
                self._end_hearing()
            elif self._hearing is not None:
                self._hearing.resume()

    async def ask(self, *statements: Statement) -> list[Rows]:
        """The rows of each statement, all in one transaction; raises as `execute`."""
        return await self.execute(self._asked(statements))

    def _asked(self, statements: tuple[Statement, ...]) -> Steps[list[Rows]]:
        if self._settings and not self.is_direct:
            # Behind a pooler the session is not ours, and the settings travel each time.
            batch = (set_for_transaction(self._settings), *statements)
            _, *replies = yield from ask_at_once(*batch)
            return replies
        if len(statements) == 1:
            return [(yield from ask(statements[0]))]
        return (yield from ask_at_once(*statements))

    @property
    def is_direct(self) -> bool:
        """Whether the connection, once there is one, is a session of our own: no pooler."""
        return self._connection is not None and is_direct(self._connection)

    async def connected(self) -> None:
        """Returns once there is a connection, however long that takes."""
        await self._connected()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._end_hearing()
        if connection is not None:
            await connection.close()

    def _end_hearing(self) -> None:
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.end()

    def _broke(self, reason: str) -> None:
        """The server left while nothing was under way."""
        connection, self._connection = self._connection, None
        self._note_lost(reason)
        self._end_hearing()
        if connection is not None:
            connection.pgconn.finish()

    def _note_lost(self, reason: str) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            emit(ConnectionLost(self._part, reason.strip()))

    async def _connected(self) -> psycopg.AsyncConnection[TupleRow]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        wait = FIRST_WAIT
        while True:
            try:
                self._connection = await self._open()
            except (PgQueueError, psycopg.Error) as error:
                self._note_lost(str(error))
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                break
        if self._lost_at is not None:
            emit(ConnectionRestored(self._part, time.monotonic() - self._lost_at))
            self._lost_at = None
        return self._connection

    async def _open(self) -> psycopg.AsyncConnection[TupleRow]:
        self.opened += 1
        connection = await aconnect(await asyncio.to_thread(self._conninfo))
        if not is_direct(connection):
            return connection
        try:
            if self._settings:
                await arun(connection, ask(set_for_session(self._settings)))
            if self._ear is not None and self._ear.channel is not None:
                await self._begin_hearing(connection, self._ear, self._ear.channel)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _begin_hearing(
        self, connection: psycopg.AsyncConnection[TupleRow], ear: Ear, channel: str
    ) -> None:
        try:
            self._hearing = await Hearing.begin(connection, channel, ear, self._broke)
        except psycopg.Error as error:
            if connection.closed:
                raise
            # Hints are a comfort: with a server that knows none, looking now and then has to do.
            emit(DutyFailed("listen", str(error)))


def _is_gone(connection: psycopg.AsyncConnection[Any], error: psycopg.Error) -> bool:
    # A stale plan or a vanished prepared statement heals with a fresh connection, too.
    stale = psycopg.errors.FeatureNotSupported | psycopg.errors.InvalidSqlStatementName
    return connection.closed or isinstance(error, stale | psycopg.InterfaceError)

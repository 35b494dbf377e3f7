"""Connections: one way to open them, and a pool per thread world and per event loop."""

from __future__ import annotations

import asyncio
import atexit
import select
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pgqueue.db.run import Steps, arun, run
from pgqueue.errors import DatabaseUnreachable
from pgqueue.settings import described_target

T = TypeVar("T")

CONNECT_TIMEOUT = 5
"""Seconds a connect may take; at start that is all the patience there is."""

ENCODING = "utf8"
"""Of what travels; by default that would be the database's own, in which psycopg may read no text
(SQL_ASCII) or cannot write what the statements' comments hold."""

# A peer that vanished without a word is noticed after about 30 s instead of two hours.
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    # Off until the server is known to be direct: behind a transaction pooler a prepared
    # statement belongs to somebody else's next transaction.
    "prepare_threshold": None,
    "client_encoding": ENCODING,
    "application_name": "pgqueue",
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    # In milliseconds. Keepalives are not sent while an answer is owed: without this a statement
    # into a dead network waits a quarter of an hour.
    "tcp_user_timeout": 30_000,
}
_PREPARE_AFTER = 3

# All that a borrower may have left in the session but its prepared statements, which psycopg knows
# of. DISCARD ALL would drop those, too, and every borrower would prepare anew.
_AS_NEW = (
    "reset session authorization; reset all; close all; unlisten *; "
    "select pg_advisory_unlock_all(); discard temp"
)


def connect(conninfo: str) -> psycopg.Connection[TupleRow]:
    """One connection in autocommit; raises DatabaseUnreachable after 5 s."""
    try:
        connection = psycopg.connect(conninfo, **_OPTIONS)
    except psycopg.OperationalError as error:
        raise _unreachable(conninfo, error) from None
    _tune(connection)
    return connection


async def aconnect(conninfo: str) -> psycopg.AsyncConnection[TupleRow]:
    """One async connection in autocommit; raises DatabaseUnreachable after 5 s."""
    try:
        connection = await psycopg.AsyncConnection.connect(conninfo, **_OPTIONS)
    except psycopg.OperationalError as error:
        raise _unreachable(conninfo, error) from None
    try:
        await _atune(connection)
    except BaseException:
        # Cancelled on the way, as a rule: nobody else would close it.
        await connection.close()
        raise
    return connection


def _unreachable(conninfo: str, error: psycopg.OperationalError) -> DatabaseUnreachable:
    # The first line names the cause behind its last "failed: "; what follows is libpq's advice.
    first = next((line for line in str(error).splitlines() if line.strip()), "no answer")
    reason = first.rpartition("failed: ")[2].removeprefix("FATAL:").strip()
    return DatabaseUnreachable(described_target(conninfo), reason)


def _tune(connection: psycopg.Connection[Any]) -> None:
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    row = connection.execute("select pg_backend_pid()").fetchone()
    _prepare_if_direct(connection, row)


async def _atune(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    cursor = await connection.execute("select pg_backend_pid()")
    _prepare_if_direct(connection, await cursor.fetchone())


def _prepare_if_direct(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], row: Any
) -> None:
    # A pooler hands out a process id of its own, so the two differ behind it.
    if row and row[0] == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_AFTER


def is_direct(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether a connection of ours is a session of its own, not one shared by a pooler."""
    return connection.prepare_threshold is not None


def _has_news(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether the server said anything to an idle connection; nothing good, as a rule."""
    return bool(select.select([connection.fileno()], [], [], 0)[0])


def _check(connection: psycopg.Connection[Any]) -> None:
    # Costs no round trip while the connection is healthy.
    if _has_news(connection):
        ConnectionPool.check_connection(connection)


async def _acheck(connection: psycopg.AsyncConnection[Any]) -> None:
    if _has_news(connection):
        await AsyncConnectionPool.check_connection(connection)


class _Lent:
    """Makes a connection that app code had in its hands as it was before."""

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._kept = {
            name: getattr(connection, name)
            for name in ("row_factory", "cursor_factory", "prepare_threshold")
        }

    def is_usable(self) -> bool:
        """Restore what costs no round trip; False when nothing is left to restore."""
        if self._connection.closed:
            return False
        for name, value in self._kept.items():
            setattr(self._connection, name, value)
        # A pooler's session is not ours, and it has its own ways to clean it.
        return is_direct(self._connection)


def _renew(connection: psycopg.Connection[Any]) -> None:
    try:
        connection.rollback()
        connection.autocommit = True
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        connection.execute(_AS_NEW, prepare=False)
    except psycopg.Error:
        connection.close()  # the pool opens another one


async def _arenew(connection: psycopg.AsyncConnection[Any]) -> None:
    try:
        await connection.rollback()
        await connection.set_autocommit(True)
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await connection.execute(_AS_NEW, prepare=False)
    except psycopg.Error:
        await connection.close()  # the pool opens another one


def _undo(connection: psycopg.Connection[Any]) -> None:
    if connection.info.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):  # the pool replaces a connection that is not fit
            connection.rollback()


async def _aundo(connection: psycopg.AsyncConnection[Any]) -> None:
    if connection.info.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):  # the pool replaces a connection that is not fit
            await connection.rollback()


class Pools:
    """Pools on one database, opened at first use; safe to share between threads and loops."""

    def __init__(
        self,
        conninfo: Callable[[], str],
        greet: Callable[[psycopg.Connection[TupleRow]], None],
        size: int = 10,
    ) -> None:
        """`greet` is given a first connection before a pool opens; what it raises is raised."""
        self._conninfo = conninfo
        self._greet = greet
        self._size = size
        self._lock = threading.Lock()
        self._sync: ConnectionPool[psycopg.Connection[TupleRow]] | None = None
        self._by_loop: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]
        ] = weakref.WeakKeyDictionary()

    def serve(self, handlers: int) -> None:
        """Let pools grow to what so many running handlers need, each up to three connections.

        One may hold two, its own transaction and one inside, and then ask for a third: with fewer
        than two each and one more, all could wait for each other. They are opened when needed. The
        pools of event loops that are open already keep their size.
        """
        with self._lock:
            self._size = max(self._size, 2 * handlers + 1)
            if self._sync is not None:
                self._sync.resize(min_size=0, max_size=self._size)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """A pooled connection in autocommit."""
        with self._sync_pool().connection() as connection:
            yield connection

    @asynccontextmanager
    async def aconnection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """A pooled async connection in autocommit, of the running loop's pool."""
        pool = await self._loop_pool()
        async with pool.connection() as connection:
            yield connection

    def run(self, steps: Steps[T]) -> T:
        """Drive a verb on a pooled connection."""
        pool = self._sync_pool()
        connection = pool.getconn()
        try:
            return run(connection, steps)
        except BaseException:
            _undo(connection)
            raise
        finally:
            pool.putconn(connection)

    async def arun(self, steps: Steps[T]) -> T:
        """Drive a verb on a pooled async connection, of the running loop's pool."""
        # Not `aconnection`: its ends, with a commit of nothing, take 50 microseconds.
        pool = await self._loop_pool()
        connection = await pool.getconn()
        try:
            return await arun(connection, steps)
        except BaseException:
            await _aundo(connection)
            raise
        finally:
            await pool.putconn(connection)

    @contextmanager
    def lend(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """`connection` for app code: settings, roles, locks and temporary tables go with it."""
        with self.connection() as connection:
            lent = _Lent(connection)
            try:
                yield connection
            finally:
                if lent.is_usable():
                    _renew(connection)

    @asynccontextmanager
    async def alend(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """`aconnection` for app code: settings, roles, locks and temporary tables go with it."""
        async with self.aconnection() as connection:
            lent = _Lent(connection)
            try:
                yield connection
            finally:
                if lent.is_usable():
                    await _arenew(connection)

    def _sync_pool(self) -> ConnectionPool[psycopg.Connection[TupleRow]]:
        with self._lock:
            if self._sync is None:
                conninfo = self._greeted()
                self._sync = ConnectionPool(
                    conninfo,
                    kwargs=_OPTIONS,
                    min_size=0,
                    max_size=self._size,
                    configure=_tune,
                    check=_check,
                    name="pgqueue",
                    open=True,
                )
                atexit.register(self.close)
            return self._sync

    def _greeted(self) -> str:
        """The database, once a plain connection has shown that it is there and fits.

        The clear error, before the pool's long patience.
        """
        conninfo = self._conninfo()
        with connect(conninfo) as connection:
            self._greet(connection)
        return conninfo

    async def _loop_pool(self) -> AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]:
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is not None:
            return pool
        conninfo = await asyncio.to_thread(self._greeted)
        pool = self._by_loop.get(loop)
        if pool is None:
            pool = AsyncConnectionPool(
                conninfo,
                kwargs=_OPTIONS,
                min_size=0,
                max_size=self._size,
                configure=_atune,
                check=_acheck,
                name="pgqueue",
                open=False,
            )
            self._by_loop[loop] = pool
            await pool.open()
        return pool

    def close(self) -> None:
        """Close the sync pool; it opens again at the next use."""
        atexit.unregister(self.close)
        with self._lock:
            pool, self._sync = self._sync, None
        if pool is not None:
            pool.close()

    async def aclose(self) -> None:
        """Close the running loop's pool; it opens again at the next use."""
        pool = self._by_loop.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()

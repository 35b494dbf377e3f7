"""What a running handler may ask for, through its Job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import psycopg
from psycopg_pool import PoolTimeout

from pgqueue.db.pools import Pools
from pgqueue.db.run import Steps, arun, run
from pgqueue.errors import DatabaseUnreachable, JobDetached, LeaseLost, TransactionEnded
from pgqueue.tasks.stepping import Book, Stepping

T = TypeVar("T")

IDLE_LIMIT_MS = 60_000
"""How long a handler's open transaction may sit idle before the server ends it: a worker that is
stopped or cut off must not keep the locks that its successor waits for."""

_OPEN = (
    "select set_config('idle_in_transaction_session_timeout', %s, true), transaction_timestamp()"
)
_ENDED = (
    "is not running any more, its handler has ended: let the handler wait for whatever still "
    "uses its Job"
)
_GONE = (psycopg.OperationalError, psycopg.InterfaceError)

Proof = Callable[[int, int, datetime], Steps[bool]]
"""Given a job's id, its lease and when the transaction began, proves the lease inside it; see
engine.finish.prove_lease."""


class Notebook(Protocol):
    """Where a handler's notes go; worker/notepad.py is one."""

    def progress(self, job_id: int, lease: int, percent: float, message: str) -> None: ...
    def log(self, job_id: int, lease: int, message: str, level: str) -> None: ...


class Keeping(NamedTuple):
    """Where the steps of a worker's jobs are kept, and what makes their results JSON text."""

    book: Book
    storable: Callable[[Any], str]


class Ways(NamedTuple):
    """What all tries of a worker have in common: their ways to the database."""

    pools: Pools
    prove: Proof
    notebook: Notebook
    keeping: Keeping
    is_running: Callable[[tuple[int, int]], bool]
    """Whether the handler of a job's id and lease has not ended. Asked when used: noted at its end
    it would cost every job."""


class RunningJob:
    """One running try: its stop flag, its steps and its way to the database."""

    # All in the class until they change: there is one of these for each job, used or not.
    may_park = True
    """False where the handler has other jobs in the same call, and cannot be left for one."""
    is_async = False
    cancel_requested = False
    """True once somebody asked for this job to be cancelled."""
    database_lost = False
    """True once a connection that we gave to the handler broke: not the handler's fault."""
    _stopping = False
    _steps: Stepping | None = None

    def __init__(self, job_id: int, lease: int, ways: Ways) -> None:
        self.job_id = job_id
        self.lease = lease
        self._ways = ways

    @property
    def pools(self) -> Pools:
        return self._ways.pools

    def prove(self, began: datetime) -> Steps[bool]:
        """Lock the job's row in the open transaction that began then; False: the lease is lost."""
        return self._ways.prove(self.job_id, self.lease, began)

    @property
    def cancelled(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        """Ask the handler to stop; a thread sees it in `job.cancelled`."""
        self._stopping = True

    def check_told(self) -> None:
        """Raise LeaseLost once the handler was told to stop: how its try ended stands already.

        Without this a thread that stops at once could commit before that is written.
        """
        if self.cancelled:
            raise LeaseLost(self.job_id, self.lease)

    def _check_runs(self) -> None:
        """A handler that was told to stop, and a thread that still runs, are fenced instead."""
        if not self._stopping and not self._ways.is_running((self.job_id, self.lease)):
            raise JobDetached(self.job_id, _ENDED)

    def transaction(self) -> LeaseTransaction:
        self._check_runs()
        return LeaseTransaction(self)

    @property
    def steps(self) -> Stepping:
        """Made at first use: few handlers have steps."""
        self._check_runs()
        if self._steps is None:
            self._steps = Stepping(self, *self._ways.keeping)
        return self._steps

    def ask(self, steps: Steps[T]) -> T:
        """Run a verb of this job on a connection of its own, in autocommit."""
        self.check_told()
        broken: psycopg.Connection[Any] | None = None
        try:
            with self.pools.connection() as connection:
                broken = connection
                return run(connection, steps)
        except BaseException as error:
            self._note(error, broken)
            raise

    async def aask(self, steps: Steps[T]) -> T:
        """`ask` for async handlers."""
        broken: psycopg.AsyncConnection[Any] | None = None
        try:
            async with self.pools.aconnection() as connection:
                broken = connection
                return await arun(connection, steps)
        except BaseException as error:
            self._note(error, broken)
            raise

    def progress(self, percent: float, message: str) -> None:
        self._check_runs()
        self._ways.notebook.progress(self.job_id, self.lease, percent, message)

    def log(self, message: str, level: str) -> None:
        self._check_runs()
        self._ways.notebook.log(self.job_id, self.lease, message, level)

    @contextmanager
    def open(self) -> Iterator[tuple[psycopg.Connection[Any], datetime]]:
        """A transaction and when it began; commits at the end, without a proof of its own."""
        broken: psycopg.Connection[Any] | None = None
        try:
            with self.pools.lend() as connection, connection.transaction():
                broken = connection
                ((_, began),) = connection.execute(_OPEN, [str(IDLE_LIMIT_MS)]).fetchall()
                yield connection, began
        except BaseException as error:
            self._note(error, broken)
            if isinstance(error, _GONE) and _was_closed(broken):
                raise TransactionEnded(self.job_id) from error
            raise

    @asynccontextmanager
    async def aopen(self) -> AsyncIterator[tuple[psycopg.AsyncConnection[Any], datetime]]:
        """`open` for async handlers."""
        broken: psycopg.AsyncConnection[Any] | None = None
        try:
            async with self.pools.alend() as connection, connection.transaction():
                broken = connection
                cursor = await connection.execute(_OPEN, [str(IDLE_LIMIT_MS)])
                ((_, began),) = await cursor.fetchall()
                yield connection, began
        except BaseException as error:
            self._note(error, broken)
            if isinstance(error, _GONE) and _was_closed(broken):
                raise TransactionEnded(self.job_id) from error
            raise

    def _note(
        self,
        error: BaseException,
        connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None,
    ) -> None:
        if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
            return  # our own limit ended it; not to count this try would repeat it for ever
        if isinstance(error, PoolTimeout | DatabaseUnreachable):
            self.database_lost = True
        elif connection is None:
            self.database_lost = self.database_lost or isinstance(error, _GONE)
        elif connection.broken:
            self.database_lost = True


def _was_closed(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None,
) -> bool:
    """Whether the handler itself closed what it was given."""
    return connection is not None and connection.closed and not connection.broken


class LeaseTransaction:
    """A transaction that commits only if the job is still ours; `with` and `async with`.

    The lease is locked last, so that cancel and progress never wait for a handler.
    """

    def __init__(self, running: RunningJob) -> None:
        self._running = running

    def __enter__(self) -> psycopg.Connection[Any]:
        self._guard = self._guarded()
        return self._guard.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._guard.__exit__(*error)

    async def __aenter__(self) -> psycopg.AsyncConnection[Any]:
        self._aguard = self._aguarded()
        return await self._aguard.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._aguard.__aexit__(*error)

    @contextmanager
    def _guarded(self) -> Iterator[psycopg.Connection[Any]]:
        running = self._running
        with running.open() as (connection, began):
            yield connection
            running.check_told()
            if not run(connection, running.prove(began)):
                raise LeaseLost(running.job_id, running.lease)

    @asynccontextmanager
    async def _aguarded(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        running = self._running
        async with running.aopen() as (connection, began):
            yield connection
            if not await arun(connection, running.prove(began)):
                raise LeaseLost(running.job_id, running.lease)

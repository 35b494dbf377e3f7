"""Where `pgq bench` works: tables of its own, made and dropped by it, and workers on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
from psycopg import sql

from pgqueue import PgQueue
from pgqueue.db import upgrade
from pgqueue.db.pools import connect
from pgqueue.errors import SchemaTaken, WorkerNotStarted
from pgqueue.settings import read_settings
from pgqueue.sql import content_schema
from pgqueue.worker.supervised import manner_of
from pgqueue.worker.supervisor import LINE_OPTION

from .bench_app import QUEUE

MARK = "made by pgq bench, which drops it"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
DROP_LOCK_TIMEOUT = 10_000
"""Milliseconds: somebody may just read the tables, a backup for example."""


def bench_app() -> PgQueue:
    """The app on the schema of the bench, beside the one that is in use."""
    return PgQueue(schema=f"{read_settings().schema_name[:24]}_bench")


@contextmanager
def own_tables(pgq: PgQueue) -> Iterator[None]:
    """Make the tables, and drop them however the work on them ends.

    Raises SchemaTaken where the schema is there already: another bench works in it, or one was
    killed, or it is somebody else's.
    """
    _create(pgq)
    try:
        upgrade.move(pgq.settings, pgq.conninfo())
        yield
    finally:
        with _undisturbed():
            pgq.pools.close()
            _drop(pgq)


def clean(pgq: PgQueue) -> bool:
    """Drop what a killed bench left; False when there is nothing.

    Raises SchemaTaken where the schema is not of a bench.
    """
    schema = pgq.settings.schema_name
    with connect(pgq.conninfo()) as connection:
        found = connection.execute(pgq.sql["bench_find_schema"], {"schema": schema}).fetchone()
    if found is None:
        return False
    if found[0] != MARK:
        raise SchemaTaken(schema, "was not made by a bench: it is not dropped")
    _drop(pgq)
    return True


def _create(pgq: PgQueue) -> None:
    schema = pgq.settings.schema_name
    name = sql.Identifier(schema)
    with connect(pgq.conninfo()) as connection, connection.transaction():
        try:
            connection.execute(sql.SQL("create schema {}").format(name))
        except psycopg.errors.DuplicateSchema:
            raise SchemaTaken(
                schema, "is there already: another pgq bench runs, or `pgq bench --clean` drops it"
            ) from None
        connection.execute(sql.SQL("comment on schema {} is {}").format(name, MARK))


def _drop(pgq: PgQueue) -> None:
    schema = pgq.settings.schema_name
    names = (sql.Identifier(schema), sql.Identifier(content_schema(schema)))
    with connect(pgq.conninfo()) as connection, connection.transaction():
        connection.execute(sql.SQL("set local lock_timeout = {}").format(DROP_LOCK_TIMEOUT))
        connection.execute(sql.SQL("drop schema if exists {}, {} cascade").format(*names))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The second Ctrl-C of an impatient person must not leave the tables behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


@contextmanager
def workers(
    schema: str, processes: int, concurrency: int | None, **settings: str
) -> Iterator[None]:
    """So many workers of the bench that have begun to work; raises WorkerNotStarted."""
    environment = {**os.environ, "PGQUEUE_SCHEMA": schema, **settings}
    words = ["worker", "--app", f"{__package__}.bench_app:pgq", "--queue", QUEUE]
    words += ["--processes", "1", "--no-scheduler", "--log-level", "error", "--health-port", "0"]
    words += [] if concurrency is None else ["--concurrency", str(concurrency)]
    command = [sys.executable, "-m", str(__package__), *words]
    with ExitStack() as stack:
        started = [stack.enter_context(_worker(command, environment)) for _ in range(processes)]
        for process, line in started:
            if not _has_started(line):
                process.kill()
                raise WorkerNotStarted(manner_of(process.wait()))
        yield


@contextmanager
def _worker(
    command: list[str], environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            descriptor = theirs.fileno()
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, LINE_OPTION, str(descriptor)],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                process_group=0,
            )
        try:
            yield process, ours
        finally:
            _end(process)


def _has_started(line: socket.socket) -> bool:
    line.settimeout(START_TIMEOUT)
    try:
        return bool(line.recv(1024))
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    with suppress(subprocess.TimeoutExpired):
        process.wait(deadline - time.monotonic())
        return
    process.kill()
    process.wait()

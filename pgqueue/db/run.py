"""Executes what the engine asks for, on a sync or an async connection.

An engine verb is a generator: it yields statements, receives their rows and returns its result.
So each verb is written once, and only the two short drivers here know how to wait (the idea is
psycopg's own, see its generators.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryLoader

T = TypeVar("T")
Row = tuple[Any, ...]
Rows = list[Row]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text and its named parameters.

    `raw` answers come in the server's binary form and cost less to read: times as microseconds
    since 2000-01-01 UTC (see `time_of`).
    """

    text: str
    params: Mapping[str, Any] | None = None
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """A `copy … from stdin` and its lines in text format, in blocks; the reply is empty.

    Raises psycopg.NotSupportedError on a connection in pipeline mode, before anything is sent.
    """

    text: str
    blocks: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """Statements for one round trip and one transaction; the reply is a list of their rows.

    For an autocommit connection: `begin` and `commit` travel in the same pipeline.
    """

    statements: tuple[Statement, ...]


Asked = Statement | Copy | Batch
Steps = Generator[Asked, Any, T]
"""A verb: yields what it asks (receives Rows, for a Batch list[Rows]); returns T."""

_BEGIN = Statement("begin isolation level read committed")
_COMMIT = Statement("commit")
_ROLLBACK = Statement("rollback")


def in_transaction(steps: Steps[T]) -> Steps[T]:
    """The steps as one transaction, for a connection in autocommit."""
    yield _BEGIN
    try:
        result = yield from steps
    except Exception:
        yield _ROLLBACK
        raise
    yield _COMMIT
    return result


def ask(statement: Statement) -> Steps[Rows]:
    """A verb of one statement: its rows."""
    rows: Rows = yield statement
    return rows


def ask_at_once(*statements: Statement) -> Steps[list[Rows]]:
    """A verb of one batch: the rows of each statement."""
    replies: list[Rows] = yield Batch(statements)
    return replies


def set_for_session(settings: Mapping[str, str]) -> Statement:
    """Server settings until the connection ends: only for a session of our own."""
    return _set(settings, "false")


def set_for_transaction(settings: Mapping[str, str]) -> Statement:
    """Server settings until the transaction ends."""
    return _set(settings, "true")


def _set(settings: Mapping[str, str], is_local: str) -> Statement:
    calls = (f"set_config('{name}', '{value}', {is_local})" for name, value in settings.items())
    return Statement("select " + ", ".join(calls))


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def time_of(microseconds: int) -> datetime:
    """A raw time as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def array_of(texts: Iterable[str]) -> str:
    """An array as a literal: the driver spends a microsecond on each element of a list."""
    return "{" + ",".join(f'"{_quoted(text)}"' for text in texts) + "}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def run(connection: psycopg.Connection[Any], steps: Steps[T]) -> T:
    """Drive a verb on a sync connection; what the database raises is thrown into the verb."""
    try:
        asked = next(steps)
        while True:
            try:
                reply = _answer(connection, asked)
            except psycopg.Error as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun(connection: psycopg.AsyncConnection[Any], steps: Steps[T]) -> T:
    """Drive a verb on an async connection; what the database raises is thrown into the verb."""
    try:
        asked = next(steps)
        while True:
            try:
                reply = await _aanswer(connection, asked)
            except psycopg.Error as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _answer(connection: psycopg.Connection[Any], asked: Asked) -> Rows | list[Rows]:
    if isinstance(asked, Statement):
        with _execute(connection, asked) as cursor:
            return cursor.fetchall() if _has_rows(cursor) else []
    if isinstance(asked, Copy):
        with connection.cursor() as cursor, cursor.copy(asked.text) as copy:
            for block in asked.blocks:
                copy.write(block)
        return []
    try:
        with connection.pipeline():
            cursors = [_execute(connection, one) for one in (_BEGIN, *asked.statements, _COMMIT)]
    except psycopg.Error:
        if _is_usable(connection):
            connection.rollback()
        raise
    return [cursor.fetchall() if _has_rows(cursor) else [] for cursor in cursors[1:-1]]


async def _aanswer(connection: psycopg.AsyncConnection[Any], asked: Asked) -> Rows | list[Rows]:
    if isinstance(asked, Statement):
        async with await _aexecute(connection, asked) as cursor:
            return await cursor.fetchall() if _has_rows(cursor) else []
    if isinstance(asked, Copy):
        async with connection.cursor() as cursor, cursor.copy(asked.text) as copy:
            for block in asked.blocks:
                await copy.write(block)
        return []
    try:
        async with connection.pipeline():
            cursors = [
                await _aexecute(connection, one) for one in (_BEGIN, *asked.statements, _COMMIT)
            ]
    except psycopg.Error:
        if _is_usable(connection):
            await connection.rollback()
        raise
    return [await cursor.fetchall() if _has_rows(cursor) else [] for cursor in cursors[1:-1]]


def _execute(connection: psycopg.Connection[Any], one: Statement) -> psycopg.Cursor[Row]:
    cursor = connection.cursor(row_factory=tuple_row, binary=one.raw)
    if one.raw:
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
    return cursor.execute(one.text, one.params)


async def _aexecute(
    connection: psycopg.AsyncConnection[Any], one: Statement
) -> psycopg.AsyncCursor[Row]:
    cursor = connection.cursor(row_factory=tuple_row, binary=one.raw)
    if one.raw:
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
    return await cursor.execute(one.text, one.params)


def _has_rows(cursor: psycopg.Cursor[Row] | psycopg.AsyncCursor[Row]) -> bool:
    """Whether the statement answers with rows; in a caller's pipeline that is not known yet."""
    # Not `description`: that describes each column, 15 microseconds for a job's.
    result = cursor.pgresult
    if result is not None:
        return result.status == ExecStatus.TUPLES_OK
    return cursor.connection.info.pipeline_status != PipelineStatus.OFF


def _is_usable(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return not (connection.closed or connection.broken)

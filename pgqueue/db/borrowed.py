"""The psycopg connection behind whatever the caller passed as `connection=`.

SQLAlchemy objects are told by their shape, not by import: a user of plain psycopg never pays for
importing SQLAlchemy.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from pgqueue.errors import ConfigError


def borrowed(connection: Any) -> psycopg.Connection[Any]:
    """The sync psycopg connection of a psycopg Connection, SQLAlchemy Connection or Session.

    Raises ConfigError for an async one (use `aenqueue`) and for another driver's.
    """
    if isinstance(connection, psycopg.Connection):
        return connection
    raw = connection
    if hasattr(raw, "get_bind") and hasattr(raw, "connection"):  # a Session
        raw = raw.connection()
    driver = getattr(getattr(raw, "connection", None), "driver_connection", None)
    if isinstance(driver, psycopg.Connection):
        # A transaction that SQLAlchemy does not know of is rolled back by its commit().
        if not raw.in_transaction():
            raw.begin()
        return driver
    raise _refused(connection, "enqueue", "a psycopg.Connection, SQLAlchemy Connection or Session")


async def aborrowed(connection: Any) -> psycopg.AsyncConnection[Any]:
    """The async psycopg connection of a psycopg, SQLAlchemy AsyncConnection or AsyncSession."""
    if isinstance(connection, psycopg.AsyncConnection):
        return connection
    raw = connection
    if hasattr(raw, "sync_session"):  # an AsyncSession
        raw = await raw.connection()
    if hasattr(raw, "get_raw_connection"):
        driver = (await raw.get_raw_connection()).driver_connection
        if isinstance(driver, psycopg.AsyncConnection):
            if not raw.in_transaction():
                await raw.begin()
            return driver
    raise _refused(
        connection,
        "aenqueue",
        "a psycopg.AsyncConnection, SQLAlchemy AsyncConnection or AsyncSession",
    )


def commits_itself(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether each statement is a transaction of its own on this connection, at this moment."""
    plain = connection.pgconn
    return (
        connection.autocommit
        and plain.transaction_status == TransactionStatus.IDLE
        and plain.pipeline_status == PipelineStatus.OFF
    )


def _refused(connection: Any, verb: str, wanted: str) -> ConfigError:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return ConfigError(
        f"connection={kind} cannot be used by {verb}: it takes {wanted} on psycopg 3 "
        "(postgresql+psycopg://)"
    )

"""A schedule whose steps fail is marked and comes later; the others go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import psycopg

from pgqueue.db.run import Row, Statement, Steps
from pgqueue.errors import PgQueueError
from pgqueue.events import ScheduleFailed, emit

T = TypeVar("T")
Sql = Mapping[str, str]


def safely(steps: Steps[T]) -> Steps[T | Exception]:
    """The steps in a savepoint; the error that they ended with where it is the schedule's own."""
    yield Statement("savepoint schedule")
    try:
        done = yield from steps
    except (PgQueueError, psycopg.DatabaseError, ValueError, OverflowError) as error:
        if isinstance(error, psycopg.OperationalError):
            raise
        yield Statement("rollback to savepoint schedule")
        return error
    yield Statement("release savepoint schedule")
    return done


def mark_failed(sql: Sql, schedule_id: int, name: str, error: Exception) -> Steps[None]:
    """Write down why, for people; it is tried again after a wait that doubles up to an hour."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    params = {"schedule_id": schedule_id, "error": reason}
    rows: list[Row] = yield Statement(sql["mark_failed_schedule"], params)
    emit(ScheduleFailed(name, reason, rows[0][0]))

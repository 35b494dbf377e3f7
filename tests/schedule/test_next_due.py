"""A scheduler sleeps until something is due: neither past it, nor for ever at what failed."""

from __future__ import annotations

from datetime import UTC, datetime

from pgqueue import PgQueue
from pgqueue.db.run import run
from pgqueue.schedule.tick import look_ahead
from proving import Clock, rows


def _next(pgq: PgQueue) -> float | None:
    with pgq.connection() as connection:
        seconds, _ = run(connection, look_ahead(pgq.sql))
        return seconds


def _add(database: str, name: str, at: datetime) -> None:
    rows(
        database,
        "insert into pgqueue.schedules (name, cron, task, next_run_at) values (%s, %s, %s, %s)",
        [name, "0 * * * *", "fire", at],
    )


def test_it_is_the_first_that_is_due_and_none_where_there_is_none(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    assert _next(pgq) is None
    _add(database, "one", datetime(2030, 1, 1, 14, tzinfo=UTC))
    _add(database, "two", datetime(2030, 1, 1, 13, tzinfo=UTC))
    assert _next(pgq) == 3600
    clock.move(hours=1, seconds=5)
    assert _next(pgq) == -5
    rows(database, "update pgqueue.schedules set enabled = false")
    assert _next(pgq) is None


def test_one_that_failed_is_due_when_it_is_to_be_tried_again(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    _add(database, "broken", datetime(2030, 1, 1, 11, tzinfo=UTC))
    assert _next(pgq) == -3600
    rows(database, "update pgqueue.schedules set retry_at = %s", [clock.at.replace(minute=1)])
    assert _next(pgq) == 60
    _add(database, "well", datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC))
    assert _next(pgq) == 30

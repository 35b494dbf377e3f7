"""Wake idle workers by NOTIFY: a hint, never needed, with polling behind it.

A notifying commit holds a lock of the whole cluster until it is durable. So a job that is committed
by us is followed by a transaction of its own, which waits for no disk, and not every job by one. In
the caller's transaction there is no "after the commit" that we could see: the hint goes with it,
once for each queue (Postgres drops the copies).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import psycopg

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.backlog import Fills
from pgqueue.events import DutyFailed, emit
from pgqueue.job import NewJob

T = TypeVar("T")
Sql = Mapping[str, str]

SCHEDULES = "!schedules"
"""What is said when a schedule has changed; no queue can be named so."""

EVENTS = "!events"
"""What is said when an event was emitted; pgqueue.emit() says it, too."""

RING_EVERY = 0.01
"""Seconds between two hints for one queue from one process. A worker that was woken looks again
after so many seconds by itself."""

LISTENING_REST = 5.0
"""Seconds that an idle worker sleeps at most while hints get through. Of jobs that are due later
than that it need not be told."""


class Bell:
    """Decides when to ring; one per app, safe to share between threads."""

    def __init__(self, sql: Sql, channel: str | None) -> None:
        """Without a channel it never rings."""
        self._sql = sql
        self._channel = channel
        self._rung: dict[str, float] = {}
        self._fills = Fills(sql)

    def within(self, new: NewJob) -> str | None:
        """The channel to notify inside the transaction that inserts `new`; None for silence."""
        return self._channel if _is_soon(new) else None

    def checked(self, steps: Steps[T], new: NewJob, count: int) -> Steps[T]:
        """`steps`, which enqueue `count` jobs, unless their queue is full: then TooManyJobs."""
        yield from self._fills.check(new.queue, count, told=False)
        return (yield from steps)

    def after(self, steps: Steps[T], new: NewJob, count: int = 1) -> Steps[T]:
        """`steps`, which commit by themselves, and then a hint unless there just was one.

        Raises TooManyJobs as `checked` does.
        """
        told = self.within(new) is not None
        if not (told and self._fills.is_open(new.queue)):
            yield from self._fills.check(new.queue, count, told=told)
        result = yield from steps
        now = time.monotonic()
        told = told or self.within(new) is not None
        if not told or now - self._rung.get(new.queue, 0.0) < RING_EVERY:
            return result
        self._rung[new.queue] = now
        self._fills.learn(new.queue, (yield from ring(self._sql, self._channel, new.queue)))
        return result


def ring(sql: Sql, channel: str | None, queue: str) -> Steps[list[int] | None]:
    """Say that this queue has work ('': any queue); for a connection in autocommit.

    Returns how many jobs may wait in it and how many do, if it has a bound.
    """
    if channel is None:
        return None
    try:
        ((*_, fill),) = yield Statement(sql["notify_apart"], {"channel": channel, "queue": queue})
    except psycopg.Error as error:
        # What this follows is committed: it must not look as if it had failed.
        emit(DutyFailed("notify", f"{type(error).__name__}: {error}"))
        return None
    return fill  # type: ignore[no-any-return]  # rows of any type


def notify(sql: Sql, channel: str, queue: str) -> Statement:
    """The statement alone, for a transaction that is under way."""
    return Statement(sql["notify"], {"channel": channel, "queue": queue})


def _is_soon(new: NewJob) -> bool:
    if new.run_at is not None:
        return new.run_at - datetime.now(UTC) < timedelta(seconds=LISTENING_REST)
    return new.delay < LISTENING_REST

"""What a job's handler has behind it: results that are kept, sleeps, waits for events.

No wake-up is lost, whoever comes first. A wait is committed before its job looks for the event, and
an event is delivered by a transaction that begins after it was committed: so either the look sees
the event, or the delivery sees the wait. And while a handler is being left, the job's row decides:
see `wake_delivered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.errors import ConfigError, LeaseLost
from pgqueue.job import Json, Requeued

Sql = Mapping[str, str]

SHOWN = 1000
"""Steps of a job that are shown: the first ones."""

EVENT_DAYS = 30
"""How long an event is kept after its delivery, for waits that begin later."""

STEP_COLUMNS = (
    "kind", "name", "attempt", "created_at", "finished_at", "result", "wake_at", "event",
    "event_key", "event_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands written of a step. A wait that is over has its event, or timed out."""

    is_over: bool
    has_come: bool
    result: Json


@dataclass(frozen=True, slots=True)
class Standing:
    """How a wait stands: over, or so many seconds left (None: without an end)."""

    is_over: bool
    has_come: bool
    result: Json
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one delivery did: jobs woken, events done with; whether there is more to do, and whether
    anybody waits."""

    woken: int
    delivered: int
    has_more: bool
    has_waiters: bool


class StepBook:
    """The verbs of a running job's steps, fenced by its lease: each raises LeaseLost."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def find(self, job_id: int) -> Steps[dict[tuple[str, str], Kept]]:
        """What is kept of the job, by kind and name."""
        rows = yield Statement(self._sql["find_steps"], {"id": job_id})
        return {
            (kind, name): Kept(is_over, has_come, result)
            for kind, name, result, is_over, has_come in rows
        }

    def keep(self, job_id: int, lease: int, name: str, result: str) -> Steps[Json]:
        """Write down what a step gave, JSON; returns it as every later try will get it."""
        ((kept,),) = yield from self._fenced(
            "keep_step", job_id, lease, {"name": name, "result": result}
        )
        return kept

    def sleep(
        self, job_id: int, lease: int, name: str, seconds: float | None, until: datetime | None
    ) -> Steps[float]:
        """Write down until when it sleeps, once; returns the seconds left, none: it is over."""
        params = {"name": name, "seconds": seconds, "until": until}
        ((left,),) = yield from self._fenced("open_sleep", job_id, lease, params)
        return float(left)

    def wait(  # noqa: PLR0917 - the wait in full
        self, job_id: int, lease: int, name: str, event: str, key: str, timeout: float | None
    ) -> Steps[Standing]:
        """Write down for what it waits, once, and look whether it has come or the time is over.

        For a connection in autocommit. Raises ConfigError when another event was written down.
        """
        params = {"name": name, "event": event, "key": key, "timeout": timeout}
        ((noted_event, noted_key),) = yield from self._fenced("open_wait", job_id, lease, params)
        if (noted_event, noted_key) != (event, key):
            raise ConfigError(
                f"wait {name!r} was for event {noted_event!r} of {noted_key!r} in an earlier try, "
                f"and is for {event!r} of {key!r} now: give each wait a name of its own"
            )
        asked = {"id": job_id, "lease": lease, "name": name, "event": event, "key": key}
        yield from self._take(asked)
        standing = yield from self._read(job_id, name)
        left = standing.seconds_left
        if standing.is_over or left is None or left > 0:
            return standing
        yield Statement(self._sql["close_wait"], {"id": job_id, "lease": lease, "name": name})
        closed = yield from self._read(job_id, name)
        if not closed.is_over:
            raise LeaseLost(job_id, lease)
        return closed

    def _take(self, asked: Mapping[str, Any]) -> Steps[None]:
        while True:
            try:
                yield Statement(self._sql["take_event"], asked)
            except psycopg.errors.UniqueViolation:
                continue  # another wait of the job got that one just now: the next look sees it
            return

    def _read(self, job_id: int, name: str) -> Steps[Standing]:
        (row,) = yield Statement(self._sql["read_wait"], {"id": job_id, "name": name})
        return Standing(*row)

    def _fenced(
        self, statement: str, job_id: int, lease: int, params: Mapping[str, Any]
    ) -> Steps[Rows]:
        asked = {**params, "id": job_id, "lease": lease}
        rows: Rows = yield Statement(self._sql[statement], asked)
        if not rows:
            raise LeaseLost(job_id, lease)
        return rows


def wake_delivered(sql: Sql, requeued: Iterable[Requeued]) -> Statement | None:
    """To follow the statement that puts jobs back: whose event has come meanwhile runs at once."""
    parked = [(outcome.job_id, name) for outcome in requeued for name in outcome.waits]
    if not parked:
        return None
    params = {"ids": [job_id for job_id, _ in parked], "names": [name for _, name in parked]}
    return Statement(sql["wake_delivered"], params)


def emit_event(sql: Sql, name: str, key: str, payload: str, *, notify: bool) -> Steps[int]:
    """Write down that something has happened, payload as JSON; returns the event's id.

    With `notify` workers hear of it when the open transaction is committed.
    """
    params = {"name": name, "key": key, "payload": payload, "notify": notify}
    ((event_id,),) = yield Statement(sql["emit_event"], params)
    return int(event_id)


def deliver_events(sql: Sql) -> Steps[Delivered]:
    """Bring new events to who waits for them; for a connection in autocommit, READ COMMITTED."""
    (row,) = yield Statement(sql["deliver_events"])
    return Delivered(*row)


def deliver_all(sql: Sql) -> Steps[int]:
    """Deliver until nothing is left but what somebody holds; returns how many jobs were woken."""
    woken = 0
    while True:
        one = yield from deliver_events(sql)
        woken += one.woken
        if not (one.has_more and (one.woken or one.delivered)):
            return woken


def show_steps(sql: Sql, job_id: int) -> Steps[list[dict[str, Any]]]:
    """The steps of a job, in the order in which they were begun, as mappings."""
    rows = yield Statement(sql["show_steps"], {"id": job_id, "n": SHOWN})
    return [dict(zip(STEP_COLUMNS, row, strict=True)) for row in rows]

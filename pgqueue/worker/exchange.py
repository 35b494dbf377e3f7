"""One round trip with the database: write endings and notes, claim the next jobs, all in one
transaction; and what to do when Postgres refuses a part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from pgqueue.db.run import Batch, Rows, Statement, Steps
from pgqueue.engine.claim import (
    NO_SEQSCAN,
    Claimed,
    Lane,
    claim_jobs,
    claimed_of_rows,
    new_lease,
)
from pgqueue.engine.finish import Written, outcome_statements, parted, written_of_rows
from pgqueue.engine.notes import Note, note_statements, unsaid
from pgqueue.events import DutyFailed, emit
from pgqueue.job import Ended, Outcome, State, storable_json
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link

RETRIED = 3
"""How often a round that lost a deadlock or a serialization race is tried again."""

# A lost claim is only a job that runs later; what has ended is always durable.
_ASYNC_COMMIT = Statement("set local synchronous_commit = off")


@dataclass(frozen=True, slots=True)
class Order:
    """What to claim: from which lanes, how many at most, and whether a suspect may be among it."""

    lanes: Sequence[Lane] = ()
    room: int = 0
    suspects: bool = False


class Exchange:
    """Knows how to write and claim; a worker has one."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        hand: Hand,
        tasks: Sequence[str],
        worker_id: Callable[[], int],
    ) -> None:
        self._sql = sql
        self._link = link
        self._hand = hand
        self._tasks = tasks
        self._worker_id = worker_id

    async def write_and_claim(
        self, outcomes: Sequence[Outcome], notes: Sequence[Note], order: Order
    ) -> tuple[Claimed, Written]:
        """Write outcomes and notes and claim, in one transaction; apart where one is poison."""
        for attempt in range(1, RETRIED + 1):
            try:
                return await self._attempt(outcomes, notes, order)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == RETRIED:
                    raise
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.CheckViolation) and attempt == 1:
                    # No partition for today, so nothing could be finished: make it, try again.
                    await self._link.execute(_one(Statement(self._sql["make_partitions"])))
                    continue
                if not (outcomes or notes) or not _is_poison(error):
                    raise
                said = await self._write_notes(notes)
                written = said.joined(await self._write_apart(outcomes))
                claimed, _ = await self._attempt((), (), order)
                return claimed, written
        return await self._attempt(outcomes, notes, order)

    async def _attempt(
        self, outcomes: Sequence[Outcome], notes: Sequence[Note], order: Order
    ) -> tuple[Claimed, Written]:
        lease = new_lease()
        before = [NO_SEQSCAN] if outcomes else [NO_SEQSCAN, _ASYNC_COMMIT]
        begun = len(before)
        if notes:
            before += note_statements(self._sql, notes, time.monotonic())
        writes = outcome_statements(self._sql, outcomes)
        claims = [self._claim(order, lease)] if order.lanes else []
        self._hand.leases_in_flight.add(lease)
        try:
            replies = await self._link.execute(_batch([*before, *writes, *claims]))
        finally:
            self._hand.leases_in_flight.discard(lease)
        first, last = len(before), len(before) + len(writes)
        written = written_of_rows(outcomes, replies[first:last])
        left = unsaid(notes, replies[begun:first])
        if written.lost or left:
            written = await self._link.execute(parted(self._sql, written, left))
        return claimed_of_rows(lease, replies[-1] if claims else []), written

    def _claim(self, order: Order, lease: int) -> Statement:
        return claim_jobs(
            self._sql,
            order.lanes,
            self._tasks,
            worker_id=self._worker_id(),
            lease=lease,
            limit=order.room,
            suspects=order.suspects,
        )

    async def _write_notes(self, notes: Sequence[Note]) -> Written:
        """Before the endings, or their jobs' rows are gone; what is refused would be for ever."""
        try:
            _, written = await self._attempt((), notes, Order())
        except psycopg.Error as error:
            if not _is_poison(error):
                raise
            emit(DutyFailed("notes", f"{len(notes)} dropped: {error}"))
            return Written(frozenset())
        return written

    async def _write_apart(self, outcomes: Sequence[Outcome]) -> Written:
        """Write a batch that Postgres refuses, split down to the culprit, which fails instead."""
        try:
            _, written = await self._attempt(outcomes, (), Order())
        except psycopg.Error as error:
            if not _is_poison(error):
                raise
            if len(outcomes) == 1:
                return await self._write_refused(outcomes[0], error)
            half = len(outcomes) // 2
            first = await self._write_apart(outcomes[:half])
            second = await self._write_apart(outcomes[half:])
            return first.joined(second)
        return written

    async def _write_refused(self, outcome: Outcome, error: Exception) -> Written:
        message = str(error).splitlines()[0]
        plain = storable_json({"reason": "bad-result", "message": message.replace("\x00", "")})
        failed = Ended(outcome.job_id, outcome.lease, State.FAILED, error=plain)
        _, written = await self._attempt([failed], (), Order())
        return written


def _is_poison(error: psycopg.Error) -> bool:
    """Whether a value in the batch is to blame (data, integrity, a limit of the program).

    A full disk or a read-only standby is nobody's fault: the batch is kept and tried again.
    """
    # What the driver itself refuses has no sqlstate.
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "")[:2] in {"23", "54"}


def _batch(statements: list[Statement]) -> Steps[list[Rows]]:
    replies: list[Rows] = yield Batch(tuple(statements))
    return replies


def _one(statement: Statement) -> Steps[Rows]:
    rows: Rows = yield statement
    return rows

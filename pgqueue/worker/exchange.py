"""One round trip with the database: write endings and notes in one transaction; and what to do when
Postgres refuses a part of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import psycopg

from pgqueue.db.run import Statement, ask
from pgqueue.engine.finish import Written, outcome_statements, parted, written_of_rows
from pgqueue.engine.limits import hold_statements
from pgqueue.engine.notes import Note, note_statements, unsaid
from pgqueue.events import DutyFailed, emit
from pgqueue.job import Ended, Outcome, State, storable_json
from pgqueue.worker.link import Link

RETRIED = 3
"""How often a round that lost a deadlock or a serialization race is tried again."""


class Exchange:
    """Knows how to write what ended and what was said; a worker has one."""

    def __init__(
        self, sql: Mapping[str, str], link: Link, limits: Mapping[int, Sequence[str]]
    ) -> None:
        self._sql = sql
        self._link = link
        self._limits = limits

    async def write(self, outcomes: Sequence[Outcome], notes: Sequence[Note]) -> Written:
        """Write both in one transaction, the notes first; apart where one is poison."""
        for attempt in range(1, RETRIED + 1):
            try:
                return await self._attempt(outcomes, notes)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == RETRIED:
                    raise
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.CheckViolation) and attempt == 1:
                    # No partition for today, so nothing could be finished: make it, try again.
                    await self._link.execute(ask(Statement(self._sql["make_partitions"])))
                    continue
                if not _is_poison(error):
                    raise
                said = await self._write_notes(notes)
                return said.joined(await self._write_apart(outcomes))
        return await self._attempt(outcomes, notes)

    async def _attempt(self, outcomes: Sequence[Outcome], notes: Sequence[Note]) -> Written:
        said = note_statements(self._sql, notes, time.monotonic()) if notes else []
        writes = outcome_statements(self._sql, outcomes)
        if self._limits:
            writes += hold_statements(self._sql, outcomes, self._limits)
        replies = await self._link.ask(*said, *writes)
        written = written_of_rows(outcomes, replies[len(said) :])
        left = unsaid(notes, replies[: len(said)])
        if written.lost or left:
            written = await self._link.execute(parted(self._sql, written, left))
        return written

    async def _write_notes(self, notes: Sequence[Note]) -> Written:
        """Before the endings, or their jobs' rows are gone; what is refused would be for ever."""
        try:
            written = await self._attempt((), notes)
        except psycopg.Error as error:
            if not _is_poison(error):
                raise
            emit(DutyFailed("notes", f"{len(notes)} dropped: {error}"))
            return Written(frozenset())
        return written

    async def _write_apart(self, outcomes: Sequence[Outcome]) -> Written:
        """Write a batch that Postgres refuses, split down to the culprit, which fails instead."""
        try:
            written = await self._attempt(outcomes, ())
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
        return await self._attempt([failed], ())


def _is_poison(error: psycopg.Error) -> bool:
    """Whether a value in the batch is to blame (data, integrity, a limit of the program).

    A full disk or a read-only standby is nobody's fault: the batch is kept and tried again.
    """
    # What the driver itself refuses has no sqlstate.
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "")[:2] in {"23", "54"}

"""Write how jobs ended, with the lease as proof; in batches, or inside a handler's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.engine.notes import Note
from pgqueue.engine.steps import wake_delivered
from pgqueue.errors import TransactionEnded
from pgqueue.job import Ended, Outcome, Requeued

Sql = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """Which outcomes were written, and which came too late: their leases were lost.

    `held` and `held_notes` are neither: somebody else's transaction holds those rows.
    """

    applied: frozenset[int]
    lost: tuple[Outcome, ...] = ()
    held: tuple[Outcome, ...] = ()
    held_notes: tuple[Note, ...] = ()

    def joined(self, other: Written) -> Written:
        return Written(
            self.applied | other.applied,
            self.lost + other.lost,
            self.held + other.held,
            self.held_notes + other.held_notes,
        )


def outcome_statements(sql: Sql, outcomes: Sequence[Outcome]) -> list[Statement]:
    """Move the ended and requeue the rest, for one transaction; neither waits for a row."""
    ended = [outcome for outcome in outcomes if isinstance(outcome, Ended)]
    requeued = [outcome for outcome in outcomes if isinstance(outcome, Requeued)]
    statements = []
    if ended:
        statements.append(_finish(sql, ended))
    if requeued:
        statements.append(_requeue(sql, requeued))
        if (wake := wake_delivered(sql, requeued)) is not None:
            statements.append(wake)
    return statements


def written_of_rows(outcomes: Sequence[Outcome], replies: Sequence[Rows]) -> Written:
    """What the statements of `outcome_statements` answered; `lost` may be `held`: see `parted`."""
    applied = frozenset([row[0] for rows in replies for row in rows])
    lost = tuple([outcome for outcome in outcomes if outcome.job_id not in applied])
    return Written(applied, lost)


def parted(sql: Sql, written: Written, notes: Sequence[Note] = ()) -> Steps[Written]:
    """What was left over, outcomes and `notes`, parted into what was lost and what is only held."""
    asked: tuple[Outcome | Note, ...] = (*written.lost, *notes)
    if not asked:
        return written
    ids, leases = [one.job_id for one in asked], [one.lease for one in asked]
    rows = yield Statement(sql["find_leases"], {"ids": ids, "leases": leases})
    held = {job_id for (job_id,) in rows}
    return replace(
        written,
        lost=tuple(outcome for outcome in written.lost if outcome.job_id not in held),
        held=tuple(outcome for outcome in written.lost if outcome.job_id in held),
        held_notes=tuple(note for note in notes if note.job_id in held),
    )


def finish_within(
    sql: Sql, ended: Ended, began: datetime, notes: Sequence[Statement] = ()
) -> Steps[bool]:
    """End one job inside the open transaction of its handler; False when the lease was lost.

    The lock comes last in the handler's transaction, just before its completion: taken first it
    would hold up cancel and progress for as long as the handler runs. Raises TransactionEnded when
    the transaction that began at `began` is no longer the open one. `notes` are written first.
    """
    if not (yield from prove_lease(sql, ended.job_id, ended.lease, began)):
        return False
    yield from notes
    rows = yield _finish(sql, [ended])
    return bool(rows)


def prove_lease(sql: Sql, job_id: int, lease: int, began: datetime) -> Steps[bool]:
    """Lock the job's row until the end of the open transaction; False when the lease was lost.

    Raises TransactionEnded as `finish_within` does.
    """
    rows = yield Statement(sql["lock_lease"], {"id": job_id, "lease": lease})
    if not rows:
        return False
    ((_, in_transaction_since),) = rows
    if in_transaction_since != began:
        raise TransactionEnded(job_id)
    return True


def _finish(sql: Sql, ended: Sequence[Ended]) -> Statement:
    params = {
        "ids": _numbers([outcome.job_id for outcome in ended]),
        "leases": _numbers([outcome.lease for outcome in ended]),
        "states": "{" + ",".join([outcome.state for outcome in ended]) + "}",
        "results": _or_none([outcome.result for outcome in ended]),
        "errors": _or_none([outcome.error for outcome in ended]),
    }
    return Statement(sql["finish_jobs"], params)


def _requeue(sql: Sql, requeued: Sequence[Requeued]) -> Statement:
    params = {
        "ids": _numbers([outcome.job_id for outcome in requeued]),
        "leases": _numbers([outcome.lease for outcome in requeued]),
        # As a literal: the driver refuses a list of whole numbers and others.
        "delays": _numbers(float(outcome.delay) for outcome in requeued),
        "uncounted": _numbers(outcome.uncounted for outcome in requeued),
        "errors": _or_none([outcome.error for outcome in requeued]),
    }
    return Statement(sql["requeue_jobs"], params)


def _numbers(numbers: Iterable[float]) -> str:
    return "{" + ",".join(map(repr, numbers)) + "}"


def _or_none(texts: list[str | None]) -> list[str | None]:
    """Empty when all are None: unnest fills what is shorter with null."""
    return [] if texts.count(None) == len(texts) else texts

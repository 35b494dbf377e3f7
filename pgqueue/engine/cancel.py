"""Stop jobs that wait or run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.claim import ClaimedJob
from pgqueue.engine.operate import Operator, patiently

Sql = Mapping[str, str]

BATCH = 500
TRIES = 3
"""How often ids that were edited under our hands are asked for again."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of the ids: ended at once, marked for their workers, or not live (any more)."""

    ended: tuple[int, ...] = ()
    marked: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


def cancel_jobs(
    sql: Sql,
    ids: Collection[int],
    operator: Operator | None = None,
    *,
    reason: str = "cancelled",
    message: str = "cancelled",
) -> Steps[Cancelled]:
    """Cancel jobs by id. Waiting ones end here; running ones end when their worker sees the mark.

    Where an `operator` acts, audit_log tells it. In batches of 500, each its own statement, so that
    no lock is held for long.
    """
    remaining = sorted(set(ids))
    became: dict[int, str] = {}
    for _ in range(TRIES):
        for start in range(0, len(remaining), BATCH):
            params = {
                "ids": remaining[start : start + BATCH],
                "reason": reason,
                "message": message,
                "who": operator.who if operator else None,
                "source": operator.source if operator else None,
            }
            rows = yield from patiently(sql, Statement(sql["cancel_jobs"], params))
            became.update(dict(rows))
        remaining = [job_id for job_id in remaining if job_id not in became]
        if not remaining:
            break
    return Cancelled(
        ended=tuple(job_id for job_id, what in became.items() if what == "cancelled"),
        marked=tuple(job_id for job_id, what in became.items() if what == "marked"),
        missing=tuple(remaining),
    )


def find_cancel_marks(sql: Sql, jobs: Collection[ClaimedJob]) -> Statement:
    """Which of these running jobs somebody wants stopped; rows of (id,)."""
    params = {"ids": [job.id for job in jobs], "leases": [job.lease for job in jobs]}
    return Statement(sql["find_cancel_marks"], params)


def end_expired(sql: Sql) -> Steps[int]:
    """Cancel up to 500 waiting jobs whose `expires_at` has passed; returns how many."""
    rows = yield Statement(sql["find_expired"])
    ids = [job_id for (job_id,) in rows]
    if not ids:
        return 0
    message = "not started before expires_at"
    cancelled = yield from cancel_jobs(sql, ids, reason="expired", message=message)
    return len(cancelled.ended)


def end_marked(sql: Sql) -> Steps[int]:
    """Cancel up to 500 limited jobs that came back marked; returns how many."""
    rows = yield Statement(sql["find_marked"])
    cancelled = yield from cancel_jobs(sql, [job_id for (job_id,) in rows])
    return len(cancelled.ended)

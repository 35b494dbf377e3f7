"""Delete what nobody needs: expired keys, logs and steps without a job, old entries and windows."""

from __future__ import annotations

from collections.abc import Mapping

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.limits import list_started
from pgqueue.engine.steps import EVENT_DAYS

Sql = Mapping[str, str]

MOST_STARTS = 5000
"""Starts that one statement deletes."""

AUDIT_DAYS = 365
"""How long the audit log is kept."""


def sweep(sql: Sql) -> Steps[int]:
    """One pass, in statements of at most 1000 rows; returns how many rows were deleted."""
    days = {"audit_days": AUDIT_DAYS, "event_days": EVENT_DAYS}
    ((found,),) = yield Statement(sql["look_for_old"], days)
    deleted = 0
    for name in found:
        match name:
            case "sweep_job_logs" | "sweep_job_steps":
                deleted += yield from _walked(sql[name])
            case "sweep_limit_starts":
                deleted += yield from _swept_starts(sql)
            case "sweep_backfills":
                deleted += len((yield Statement(sql[name])))
            case _:
                deleted += yield from _until_none(Statement(sql[name], days))
    return deleted


def _until_none(statement: Statement) -> Steps[int]:
    deleted = 0
    while rows := (yield statement):
        deleted += len(rows)
    return deleted


def _swept_starts(sql: Sql) -> Steps[int]:
    deleted = 0
    names = yield from list_started(sql, "")
    while names:
        swept = len((yield Statement(sql["sweep_limit_starts"], {"names": names})))
        deleted += swept
        # As many as it takes at once: there may be more of the same.
        if swept < MOST_STARTS:
            names = yield from list_started(sql, names[-1])
    return deleted


def _walked(statement: str) -> Steps[int]:
    deleted = 0
    place: int | None = 0
    while place is not None:
        ((place, count),) = yield Statement(statement, {"after": place})
        deleted += count
    return deleted

"""Delete what nobody needs: expired keys, logs and steps without a job, old entries and windows."""

from __future__ import annotations

from collections.abc import Mapping

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.steps import EVENT_DAYS

Sql = Mapping[str, str]

MOST_STARTS = 5000
"""Starts that one statement deletes."""

AUDIT_DAYS = 365
"""How long the audit log is kept."""


def sweep(sql: Sql) -> Steps[int]:
    """One pass, in statements of at most 1000 rows; returns how many rows were deleted."""
    keys = yield from _until_none(Statement(sql["sweep_unique_keys"]))
    workflows = yield from _until_none(Statement(sql["sweep_workflows"]))
    entries = yield from _until_none(Statement(sql["sweep_audit_log"], {"days": AUDIT_DAYS}))
    events = yield from _until_none(Statement(sql["sweep_events"], {"days": EVENT_DAYS}))
    lines = yield from _walked(sql["sweep_job_logs"])
    steps = yield from _walked(sql["sweep_job_steps"])
    starts = yield from _swept_starts(sql)
    turns = yield from _until_none(Statement(sql["sweep_limit_turns"]))
    limits = yield from _until_none(Statement(sql["sweep_limits"]))
    windows = yield from _until_none(Statement(sql["sweep_windows"]))
    backfills = len((yield Statement(sql["sweep_backfills"])))
    jobs = keys + lines + steps + workflows
    return jobs + entries + events + starts + turns + limits + windows + backfills


def _until_none(statement: Statement) -> Steps[int]:
    deleted = 0
    while rows := (yield statement):
        deleted += len(rows)
    return deleted


def _swept_starts(sql: Sql) -> Steps[int]:
    deleted = 0
    place: str | None = ""
    while place is not None:
        ((reached, count),) = yield Statement(sql["sweep_limit_starts"], {"after": place})
        deleted += count
        # As many as it takes at once: there may be more of the same.
        place = place if count >= MOST_STARTS else reached
    return deleted


def _walked(statement: str) -> Steps[int]:
    deleted = 0
    place: int | None = 0
    while place is not None:
        ((place, count),) = yield Statement(statement, {"after": place})
        deleted += count
    return deleted

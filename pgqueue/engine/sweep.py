"""Delete what nobody needs any more: expired keys, logs without a job, old entries and windows."""

from __future__ import annotations

from collections.abc import Mapping

from pgqueue.db.run import Statement, Steps

Sql = Mapping[str, str]

AUDIT_DAYS = 365
"""How long the audit log is kept."""


def sweep(sql: Sql) -> Steps[int]:
    """One pass, in statements of at most 1000 rows; returns how many rows were deleted."""
    keys = yield from _until_none(Statement(sql["sweep_unique_keys"]))
    entries = yield from _until_none(Statement(sql["sweep_audit_log"], {"days": AUDIT_DAYS}))
    lines = yield from _sweep_logs(sql)
    windows = yield from _until_none(Statement(sql["sweep_windows"]))
    backfills = yield Statement(sql["sweep_backfills"])
    return keys + entries + lines + windows + len(backfills)


def _until_none(statement: Statement) -> Steps[int]:
    deleted = 0
    while rows := (yield statement):
        deleted += len(rows)
    return deleted


def _sweep_logs(sql: Sql) -> Steps[int]:
    deleted = 0
    place: int | None = 0
    while place is not None:
        ((place, count),) = yield Statement(sql["sweep_job_logs"], {"after": place})
        deleted += count
    return deleted

"""Pause queues, and let them go on."""

from __future__ import annotations

from collections.abc import Mapping

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.operate import Operator

Sql = Mapping[str, str]


def pause_queue(sql: Sql, queue: str, operator: Operator, reason: str | None) -> Steps[bool]:
    """Let no worker take from the queue; False when it was paused already."""
    params = {"queue": queue, "reason": reason, **operator.params}
    rows = yield Statement(sql["pause_queue"], params)
    return bool(rows)


def resume_queue(sql: Sql, queue: str, operator: Operator) -> Steps[bool]:
    """Let workers take from it again; False when it was not paused."""
    rows = yield Statement(sql["resume_queue"], {"queue": queue, **operator.params})
    return bool(rows)

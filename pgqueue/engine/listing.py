"""Lists and figures for people and machines: mappings with the SQL column names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.engine.filters import JobFilter
from pgqueue.engine.steps import show_steps
from pgqueue.errors import JobNotFound

Sql = Mapping[str, str]
Record = dict[str, Any]

JOB_COLUMNS = (
    "id", "task", "queue", "priority", "state", "status", "payload", "tenant", "tags",
    "unique_key", "limits", "blocked_on", "run_at", "scheduled_at", "attempt", "max_attempts",
    "lease", "worker_id", "started_at", "created_at", "timeout", "errors", "progress", "headers",
    "workflow_id", "cancel_requested_at", "finished_at", "result", "expires_at", "crashes",
    "suspect",
)  # fmt: skip
_QUEUE_COLUMNS = (
    "queue", "paused", "queued", "scheduled", "retrying", "blocked", "waiting", "running",
    "oldest_due", "paused_at", "paused_by", "pause_reason",
)  # fmt: skip
_TASK_COLUMNS = ("task", "completed", "failed", "cancelled", "average_time", "last_finished_at")
_WORKER_COLUMNS = (
    "id", "host", "pid", "version", "queues", "concurrency", "started_at", "heartbeat_at",
    "silent_for", "alive", "running",
)  # fmt: skip
_NEXT_RUN_COLUMNS = ("id", "name", "task", "enabled", "next_run_at", "last_run_at", "last_error")
_LOG_COLUMNS = ("attempt", "at", "level", "message")

LOG_LINES = 1000
"""Lines of a job's log that are shown: the last ones."""


def list_jobs(
    sql: Sql, wanted: JobFilter, *, limit: int, before: int | None = None
) -> Steps[list[Record]]:
    """Jobs that fit, newest first, at most `limit`; `before` is the last id of the page before."""
    params = {**wanted.params, "n": limit, "before": before}
    return _records(JOB_COLUMNS, (yield Statement(sql["list_jobs"], params)))


def find_row(sql: Sql, job_id: int) -> Steps[Record]:
    """A job with every column, live or finished; raises JobNotFound."""
    rows = yield Statement(sql["show_job"], {"id": job_id})
    if not rows:
        raise JobNotFound(job_id)
    return _records(JOB_COLUMNS, rows)[0]


def show_job(sql: Sql, job_id: int) -> Steps[Record]:
    """A job with every column, with `timeline`, `steps` and `logs`; raises JobNotFound."""
    row = yield from find_row(sql, job_id)
    steps = yield from show_steps(sql, job_id)
    lines = yield Statement(sql["find_logs"], {"id": job_id, "n": LOG_LINES})
    logs = _records(_LOG_COLUMNS, lines)
    return {**row, "timeline": timeline(row), "steps": steps, "logs": logs}


def timeline(row: Mapping[str, Any]) -> list[Record]:
    """What happened to a job, in order: `at` (ISO 8601), `event`, `attempt`, `message` each."""
    happened = [_event(row["created_at"].isoformat(), "created")]
    for error in row["errors"]:
        message = str(error.get("message") or "")
        event = str(error.get("reason") or "error")
        at = str(error.get("at") or row["created_at"].isoformat())
        happened.append(_event(at, event, error.get("attempt"), message))
    if row["started_at"] is not None:
        happened.append(_event(row["started_at"].isoformat(), "started", row["attempt"]))
    if row["cancel_requested_at"] is not None:
        happened.append(_event(row["cancel_requested_at"].isoformat(), "cancel requested"))
    if row["finished_at"] is not None:
        happened.append(_event(row["finished_at"].isoformat(), row["state"], row["attempt"]))
    elif row["status"] in ("scheduled", "retrying"):
        happened.append(_event(row["run_at"].isoformat(), "due again"))
    # As instants: the server writes its times in the zone of the session.
    return sorted(happened, key=lambda event: datetime.fromisoformat(event["at"]))


def _event(at: str, event: str, attempt: int | None = None, message: str = "") -> Record:
    return {"at": at, "event": event, "attempt": attempt, "message": message}


def list_queues(sql: Sql) -> Steps[list[Record]]:
    """The rows of the view queue_stats."""
    return _records(_QUEUE_COLUMNS, (yield Statement(sql["list_queues"])))


def stats(sql: Sql) -> Steps[dict[str, list[Record]]]:
    """`queues`, `tasks` (last 24 hours), `workers` and `schedules` (next runs), as in the views."""
    return {
        "queues": (yield from list_queues(sql)),
        "tasks": _records(_TASK_COLUMNS, (yield Statement(sql["list_task_stats"]))),
        "workers": _records(_WORKER_COLUMNS, (yield Statement(sql["list_workers"]))),
        "schedules": _records(_NEXT_RUN_COLUMNS, (yield Statement(sql["list_next_runs"]))),
    }


def _records(columns: tuple[str, ...], rows: Rows) -> list[Record]:
    return [dict(zip(columns, row, strict=True)) for row in rows]

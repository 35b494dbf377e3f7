"""Jobs as tests need them: ended in some way, or in the hands of some worker."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import sql

COLUMNS = sql.SQL(
    "id, task, queue, priority, payload, tenant, tags, unique_key, limits, run_at, scheduled_at, "
    "max_attempts, started_at, created_at, timeout, progress, headers, workflow_id, "
    "cancel_requested_at, expires_at, crashes, suspect"
)


def end(
    url: str, *job_ids: int, state: str = "failed", reason: str = "exception", at: Any = None
) -> None:
    """Let live jobs end after one more try, as their worker would have written it."""
    error = {
        "attempt": 1,
        "reason": reason,
        "message": "no such host",
        "at": "2020-01-01T00:00:00Z",
    }
    statement = sql.SQL(
        "with gone as (delete from pgqueue.jobs where id = any(%(ids)s) returning {columns}, "
        "attempt, errors) insert into pgqueue.finished_jobs ({columns}, attempt, errors, state, "
        "result, finished_at) select {columns}, attempt + 1, errors || %(error)s::jsonb, "
        "%(state)s, '1', coalesce(%(at)s::timestamptz, pgqueue.clock_now()) from gone"
    ).format(columns=COLUMNS)
    params = {"ids": list(job_ids), "error": json.dumps(error), "state": state, "at": at}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, params)


def worker(
    url: str, *, queues: Any = (), tasks: Any = (), silent: float = 0, slots: int = 1
) -> int:
    """The row of a worker that beat `silent` seconds ago; returns its id."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "insert into pgqueue.workers (host, pid, version, queues, concurrency, tasks, "
            "heartbeat_at) values ('host-1', 77, '0', %s::text[], %s, %s::text[], "
            "pgqueue.clock_now() - %s * interval '1 second') returning id",
            [list(queues), slots, list(tasks), silent],
        ).fetchone()
    assert row is not None
    return int(row[0])


def run_on(url: str, job_id: int, worker_id: int, *, since: float = 0) -> None:
    """Let the job run on that worker since so many seconds."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "update pgqueue.jobs set state = 'running', lease = 5, worker_id = %s, "
            "attempt = attempt + 1, started_at = pgqueue.clock_now() - %s * interval '1 second' "
            "where id = %s",
            [worker_id, since, job_id],
        )

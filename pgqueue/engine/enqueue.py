"""Insert jobs: one, or many in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.inspect import job_of_row
from pgqueue.job import Job, NewJob, State, storable_json

Sql = Mapping[str, str]


def enqueue_job(sql: Sql, new: NewJob) -> Steps[Job]:
    """Insert one job, or return the live one that holds its unique key."""
    while True:
        rows = yield Statement(sql["insert_job"], _single(new))
        if rows:
            return _inserted(new, rows[0])
        rows = yield Statement(sql["find_by_unique_key"], {"unique_key": new.unique_key})
        if rows:
            return job_of_row(rows[0])
        # The holder of the key ended between the two statements: the key is free again.


def enqueue_jobs(sql: Sql, new_jobs: Sequence[NewJob]) -> Steps[list[int]]:
    """Insert many jobs in one statement; returns their ids in the order given.

    Where a live job already holds a unique key, the id is that job's.
    """
    if not new_jobs:
        return []
    rows = yield Statement(sql["insert_jobs"], _columns(new_jobs))
    ids = {place - 1: job_id for place, job_id in rows}
    for place, new in enumerate(new_jobs):
        if place not in ids:
            ids[place] = (yield from enqueue_job(sql, new)).id
    return [ids[place] for place in range(len(new_jobs))]


def _single(new: NewJob) -> dict[str, Any]:
    return {
        "task": new.task,
        "queue": new.queue,
        "payload": storable_json(new.payload),
        "priority": new.priority,
        "run_at": new.run_at,
        "delay": new.delay,
        "tenant": new.tenant,
        "tags": list(new.tags),
        "unique_key": new.unique_key,
        "max_attempts": new.max_attempts,
        "timeout": new.timeout,
        "headers": json.dumps(new.headers or {}),
    }


def _columns(new_jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    singles = [_single(new) for new in new_jobs]
    # Each tag list travels as one array literal: unnest flattens nested arrays.
    for single in singles:
        single["tags"] = _array_literal(single["tags"])
    names = {
        "tasks": "task",
        "queues": "queue",
        "payloads": "payload",
        "priorities": "priority",
        "run_ats": "run_at",
        "delays": "delay",
        "tenants": "tenant",
        "tags": "tags",
        "unique_keys": "unique_key",
        "max_attempts": "max_attempts",
        "timeouts": "timeout",
        "headers": "headers",
    }
    return {plural: [single[name] for single in singles] for plural, name in names.items()}


def _array_literal(texts: Sequence[str]) -> str:
    quoted = ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"


def _inserted(new: NewJob, row: tuple[Any, ...]) -> Job:
    job_id, state, *times = row
    run_at, scheduled_at, created_at = (time.astimezone(UTC) for time in times)
    return Job(
        id=job_id,
        task=new.task,
        queue=new.queue,
        priority=new.priority,
        state=State(state),
        payload=new.payload,
        tenant=new.tenant,
        tags=new.tags,
        unique_key=new.unique_key,
        run_at=run_at,
        scheduled_at=scheduled_at,
        attempt=0,
        max_attempts=new.max_attempts,
        lease=None,
        worker_id=None,
        started_at=None,
        created_at=created_at,
        timeout=new.timeout,
        headers=new.headers or {},
    )

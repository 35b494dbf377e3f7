"""Look at jobs without changing them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.errors import JobNotFound
from pgqueue.job import Job, State


def job_of_row(row: tuple[Any, ...]) -> Job:
    """The Job of a row with the columns of `find_job`, in that order."""
    job_id, task, queue, priority, state, payload, tenant, tags, *rest = row
    # The driver gives times in the session's zone; a Job's are in UTC.
    rest = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in rest]
    return Job(job_id, task, queue, priority, State(state), payload, tenant, tuple(tags), *rest)


def get_job(sql: Mapping[str, str], job_id: int) -> Steps[Job]:
    """A job by id, live or finished; raises JobNotFound."""
    rows = yield Statement(sql["find_job"], {"id": job_id})
    if not rows:
        raise JobNotFound(job_id)
    return job_of_row(rows[0])


def find_live_workers(sql: Mapping[str, str], host: str, timeout: float) -> Steps[list[int]]:
    """Process ids of the workers on `host` whose last beat is younger than `timeout` seconds."""
    rows = yield Statement(sql["find_live_workers"], {"host": host, "timeout": timeout})
    return [pid for _, pid in rows]

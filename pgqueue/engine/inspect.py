"""Look at jobs without changing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgqueue.db.run import Statement, Steps
from pgqueue.errors import JobNotFound
from pgqueue.job import Job, Json, State

TRIES = 2


def job_of_row(row: tuple[Any, ...]) -> Job:
    """The Job of a row with the columns of `find_job`, in that order."""
    job_id, task, queue, priority, state, payload, tenant, tags, *rest = row
    # The driver gives times in the session's zone; a Job's are in UTC.
    rest = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in rest]
    return Job(job_id, task, queue, priority, State(state), payload, tenant, tuple(tags), *rest)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended; `reason` is the last error's reason and message."""

    state: State
    result: Json
    reason: str


def find_ending(sql: Mapping[str, str], job: Job) -> Steps[Ending | None]:
    """How the job ended; None while it is live. Raises JobNotFound when it is gone."""
    for _ in range(TRIES):
        live = yield Statement(sql["find_live_state"], {"id": job.id})
        if live:
            return None
        params = {"id": job.id, "created_at": job.created_at}
        rows = yield Statement(sql["find_ending"], params)
        if rows:
            ((state, result, errors),) = rows
            return Ending(State(state), result, _reason(errors))
        # Retried between the two looks, perhaps: it would be live again.
    raise JobNotFound(job.id)


def _reason(errors: list[dict[str, Json]]) -> str:
    if not errors:
        return ""
    last = errors[-1]
    return ": ".join(str(last[name]) for name in ("reason", "message") if last.get(name))


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

"""Take due jobs with FOR UPDATE SKIP LOCKED, under a lease the worker made."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

from pgqueue.db.run import Rows, Statement, array_of, set_for_transaction, time_of
from pgqueue.job import Job, JobHandle, State

LANE_START = (datetime(1, 1, 2, tzinfo=UTC), 0)
"""The bound that is before every job."""


STEADY = {
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "default_transaction_isolation": "read committed",
}
"""Settings for what walks `jobs` by an index: a small table would be read whole, and that plan kept
after it has grown; with stale statistics a large one, too. And what is prepared is planned once:
planning a claim took half a millisecond. A plan that has no way but a forbidden one seems dear
enough to be compiled, which took 0.27 s a look. Where the database's default is stricter, a row
that somebody edits just then would fail the claim."""

STEADY_NOT_DURABLE = {**STEADY, "synchronous_commit": "off"}
"""The same for claims alone: a lost one is only a job that runs later."""

STEADY_PLAN = set_for_transaction(STEADY)
STEADY_PLAN_NOT_DURABLE = set_for_transaction(STEADY_NOT_DURABLE)


@dataclass(frozen=True, slots=True)
class Lane:
    """One (queue, priority) and the last (run_at, id) that was seen in it."""

    queue: str
    priority: int
    bound: tuple[datetime, int] = LANE_START


class ClaimedJob(NamedTuple):
    """A claimed row as the driver gave it: a Job costs 20 times as much, and few handlers ask.

    `payload` and `headers` are JSON text; times are raw (see `db.run.time_of`).
    """

    id: int
    task: str
    queue: str
    priority: int
    payload: str
    tenant: str | None
    tags: list[str] | None
    unique_key: str | None
    run_at: int
    scheduled_at: int
    attempt: int
    max_attempts: int
    lease: int
    worker_id: int
    started_at: int
    created_at: int
    timeout: float | None
    headers: str | None
    expires_at: int | None
    cancel_requested_at: int | None
    crashes: int
    suspect: bool
    workflow_id: int | None = None

    def job(self, handle: JobHandle | None = None) -> Job:
        """The Job that a handler is given."""
        return Job(
            id=self.id,
            task=self.task,
            queue=self.queue,
            priority=self.priority,
            state=State.RUNNING,
            payload=json.loads(self.payload),
            tenant=self.tenant,
            tags=tuple(self.tags or ()),
            unique_key=self.unique_key,
            run_at=time_of(self.run_at),
            scheduled_at=time_of(self.scheduled_at),
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            lease=self.lease,
            worker_id=self.worker_id,
            started_at=time_of(self.started_at),
            created_at=time_of(self.created_at),
            timeout=self.timeout,
            headers=json.loads(self.headers or "{}"),
            expires_at=None if self.expires_at is None else time_of(self.expires_at),
            # A mark that somebody else set: the job is not started any more.
            cancel_requested_at=None,
            crashes=self.crashes,
            suspect=self.suspect,
            workflow_id=self.workflow_id,
            _handle=handle,
        )


_FIELDS = ClaimedJob._fields.index
LANE = itemgetter(_FIELDS("queue"), _FIELDS("priority"))
"""The lane of a ClaimedJob, and its place in there. Faster than by name."""
PLACE = itemgetter(_FIELDS("run_at"), _FIELDS("id"))
_PRIORITY = itemgetter(_FIELDS("priority"))


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim statement took; `locked` counts rows it locked, edited ones included.

    Jobs of higher priority come first, then older ones.
    """

    lease: int
    locked: int
    jobs: tuple[ClaimedJob, ...]


def new_lease() -> int:
    """A random number below 2**53, which every JSON reader keeps exact.

    Random, because a counter repeats after a crash: the zombie's lease 5 would be the successor's.
    """
    return secrets.randbits(53)


def claim_jobs(
    sql: Mapping[str, str],
    lanes: Sequence[Lane],
    tasks: Sequence[str],
    *,
    worker_id: int,
    lease: int,
    limit: int,
    suspects: bool = True,
) -> Statement:
    """The statement that claims up to `limit` jobs of these tasks from these lanes, in order.

    Without `suspects`, jobs that were in the hands of a worker that died are left to others.
    """
    params = {
        "queues": array_of(lane.queue for lane in lanes),
        "priorities": array_of(str(lane.priority) for lane in lanes),
        "bound_ats": array_of(lane.bound[0].isoformat() for lane in lanes),
        "bound_ids": array_of(str(lane.bound[1]) for lane in lanes),
        "tasks": array_of(tasks),
        "worker_id": worker_id,
        "lease": lease,
        "n": limit,
        "suspects": suspects,
    }
    return Statement(sql["claim_jobs"], params, raw=True)


def claimed_of_rows(lease: int, rows: Rows) -> Claimed:
    """What `claim_jobs` answered, in order; its rows come in none."""
    locked = rows[0][0] if rows else 0
    # Not `_make`, which counts the fields of each.
    new = tuple.__new__
    jobs = [new(ClaimedJob, row[1:]) for row in rows if row[1] is not None]
    jobs.sort(key=PLACE)
    if len({job.priority for job in jobs}) > 1:
        jobs.sort(key=_PRIORITY, reverse=True)
    return Claimed(lease, locked, tuple(jobs))


@dataclass(frozen=True, slots=True)
class Look:
    """What waits: each (queue, priority) that holds queued jobs, and in how many seconds its first
    is due; whether somebody is admitted, and in how many seconds a pass of admission may have
    something to do."""

    lanes: list[tuple[str, int, float]]
    admitted: bool
    wait: float | None


def look_around(sql: Mapping[str, str], lowest: int) -> Statement:
    """The statement that looks at all that waits; no admission lives below `lowest`."""
    return Statement(sql["look_around"], {"lowest": lowest})


def look_of_rows(rows: Rows) -> Look:
    """What `look_around` answered."""
    *_, admitted, wait = rows[0]
    return Look([row[:3] for row in rows if row[0] is not None], admitted, wait)

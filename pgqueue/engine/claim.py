"""Take due jobs with FOR UPDATE SKIP LOCKED, under a lease the worker made."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.engine.inspect import job_of_row
from pgqueue.job import Job

LANE_START = (datetime(1, 1, 2, tzinfo=UTC), 0)
"""The bound that is before every job."""


NO_SEQSCAN = Statement("set local enable_seqscan = off")
"""Goes before what walks `jobs` by an index: a small table would be read whole, and that plan kept
after it has grown; with stale statistics a large one, too."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One (queue, priority) and the last (run_at, id) that was seen in it."""

    queue: str
    priority: int
    bound: tuple[datetime, int] = LANE_START


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim statement took; `locked` counts rows it locked, edited ones included."""

    lease: int
    locked: int
    jobs: tuple[Job, ...]


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
        "queues": [lane.queue for lane in lanes],
        "priorities": [lane.priority for lane in lanes],
        "bound_ats": [lane.bound[0] for lane in lanes],
        "bound_ids": [lane.bound[1] for lane in lanes],
        "tasks": list(tasks),
        "worker_id": worker_id,
        "lease": lease,
        "n": limit,
        "suspects": suspects,
    }
    return Statement(sql["claim_jobs"], params)


def claimed_of_rows(lease: int, rows: Rows) -> Claimed:
    """What `claim_jobs` answered; its rows carry no particular order."""
    locked = rows[0][0] if rows else 0
    jobs = [job_of_row(row[1:]) for row in rows if row[1] is not None]
    return Claimed(lease, locked, tuple(jobs))


def find_lanes(sql: Mapping[str, str]) -> Steps[list[tuple[str, int]]]:
    """Every (queue, priority) that holds queued jobs, due or not."""
    rows: list[tuple[str, int]] = yield Statement(sql["find_lanes"])
    return rows

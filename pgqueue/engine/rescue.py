"""Workers come, beat and go; what a dead one held is taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pgqueue.db.run import Batch, Statement, Steps
from pgqueue.engine.claim import STEADY_PLAN

Sql = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rescued:
    """The jobs taken back from one dead worker."""

    worker_id: int
    job_ids: tuple[int, ...]


def register_worker(
    sql: Sql,
    *,
    host: str,
    pid: int,
    version: str,
    queues: Sequence[str],
    concurrency: int,
    tasks: Sequence[str],
) -> Steps[int]:
    """Insert a worker's row; returns its id."""
    params = {
        "host": host,
        "pid": pid,
        "version": version,
        "queues": list(queues),
        "concurrency": concurrency,
        "tasks": list(tasks),
    }
    rows = yield Statement(sql["register_worker"], params)
    worker_id: int = rows[0][0]
    return worker_id


def beat(sql: Sql, worker_id: int, started_jobs: Collection[int]) -> Steps[bool]:
    """Say that the worker lives and what it runs; False when it was declared dead."""
    params = {"worker_id": worker_id, "started_jobs": list(started_jobs)}
    rows = yield Statement(sql["beat"], params)
    return bool(rows)


def forget_worker(sql: Sql, worker_id: int) -> Steps[bool]:
    """Delete the worker's row, unless it still holds jobs."""
    rows = yield Statement(sql["forget_worker"], {"worker_id": worker_id})
    return bool(rows)


def rescue_jobs(sql: Sql, timeout: float) -> Steps[list[Rescued]]:
    """Take back the jobs of workers silent for `timeout` seconds, and forget those workers.

    For a connection in autocommit.
    """
    dead = yield Statement(sql["find_dead_workers"], {"timeout": timeout})
    rescued: list[Rescued] = []
    for (worker_id,) in dead:
        job_ids: list[int] = []
        while True:
            params = {"worker_id": worker_id, "timeout": timeout}
            _, rows = yield Batch((STEADY_PLAN, Statement(sql["rescue_jobs"], params)))
            job_ids += [job_id for (job_id,) in rows]
            if not rows:
                break
        yield from forget_worker(sql, worker_id)
        if job_ids:
            rescued.append(Rescued(worker_id, tuple(job_ids)))
    return rescued


def hand_back_strays(sql: Sql, worker_id: int, in_hand: Callable[[], InHand]) -> Steps[list[int]]:
    """Hand back the running jobs of this worker that it does not know of; returns their ids.

    `in_hand` is asked after the database's clock was read: a claim that is neither under way nor
    in hand at that moment, and began before it, has lost its reply.
    """
    ((before,),) = yield Statement(sql["now"])
    known = in_hand()
    params = {
        "worker_id": worker_id,
        "before": before,
        "in_flight": list(known.leases_in_flight),
        "held": list(known.job_ids),
    }
    _, rows = yield Batch((STEADY_PLAN, Statement(sql["hand_back_strays"], params)))
    return [job_id for (job_id,) in rows]


@dataclass(frozen=True, slots=True)
class InHand:
    """What a worker knows it holds: leases of claims under way, and ids of jobs in memory."""

    leases_in_flight: frozenset[int]
    job_ids: frozenset[int]

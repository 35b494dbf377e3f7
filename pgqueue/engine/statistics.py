"""What waits in the whole database, at a bounded cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgqueue.db.run import Batch, Rows, Statement, Steps


@dataclass(frozen=True, slots=True)
class Statistics:
    """Queued jobs, due and future: exact up to 10,000, then the planner's estimate; schedules."""

    queued: int
    queued_is_exact: bool
    schedules: int
    next_runs: list[str]


def find_statistics(sql: Mapping[str, str]) -> Steps[Statistics]:
    """What costs the same with a million queued jobs as with 10,000."""
    statements = (Statement(sql["count_by_index"]), Statement(sql["find_statistics"]))
    replies: list[Rows] = yield Batch(statements)
    return Statistics(*replies[1][0])


TaskCounts = tuple[tuple[str, int], ...]
"""Names of tasks, each with a number of jobs."""


def find_unknown_tasks(sql: Mapping[str, str], queues: Sequence[str]) -> Steps[TaskCounts]:
    """Tasks with due jobs in these queues (none: all) that no live worker knows; at most 20.

    Of each queue and priority the first 1,000 due jobs are looked at.
    """
    look = Statement(sql["find_unknown_tasks"], {"queues": list(queues)})
    replies: list[Rows] = yield Batch((Statement(sql["count_by_index"]), look))
    return tuple((task, jobs) for task, jobs in replies[1])


def find_rollout(sql: Mapping[str, str], seconds: float) -> Steps[bool]:
    """Whether the newest live worker started within the last `seconds`."""
    rows: Rows = yield Statement(sql["find_rollout"], {"seconds": seconds})
    return bool(rows)

"""What waits in the whole database, at a bounded cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgqueue.db.run import Rows, Statement, Steps


@dataclass(frozen=True, slots=True)
class Statistics:
    """Queued jobs, due and future: exact up to 10,000, then the planner's estimate; schedules."""

    queued: int
    queued_is_exact: bool
    schedules: int
    next_runs: list[str]


def find_statistics(sql: Mapping[str, str]) -> Steps[Statistics]:
    """One statement that costs the same with a million queued jobs as with 10,000."""
    rows: Rows = yield Statement(sql["find_statistics"])
    return Statistics(*rows[0])


def find_rollout(sql: Mapping[str, str], seconds: float) -> Steps[bool]:
    """Whether the newest live worker started within the last `seconds`."""
    rows: Rows = yield Statement(sql["find_rollout"], {"seconds": seconds})
    return bool(rows)

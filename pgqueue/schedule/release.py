"""Windows whose jobs are held: whose turn it is, and who has to go for a newer one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgqueue.db.run import Statement, Steps, in_transaction
from pgqueue.events import ScheduleUnhealthy, emit

Sql = Mapping[str, str]

Place = tuple[int, int]
"""Of a window among the open ones: its schedule's id and its own."""

ROUNDS = 100
"""Rounds of one pass; heads whose jobs were cancelled or deleted take one each."""

SETTLED_A_STATEMENT = 1000
PAGES = 20


def release_windows(sql: Sql) -> Steps[int]:
    """Let the jobs go whose turn it is; returns how many. Inside the transaction of a pass."""
    yield from _cancel_superseded(sql)
    released = 0
    for _ in range(ROUNDS):
        ((let_go, closed),) = yield Statement(sql["release_windows"])
        released += let_go
        if not closed:
            break
        # Where one was cancelled there may be thousands, and a round closes one of a schedule.
        yield Statement(sql["close_dead_windows"])
    return released


def let_go(sql: Sql) -> Steps[int]:
    """`release_windows` in a transaction of its own, for a connection in autocommit."""
    return (yield from in_transaction(_let_go(sql)))


def _let_go(sql: Sql) -> Steps[int]:
    ((is_held, is_filling),) = yield Statement(sql["look_for_held"])
    return (yield from release_windows(sql)) if is_held or is_filling else 0


def _cancel_superseded(sql: Sql) -> Steps[None]:
    rows = yield Statement(sql["lock_superseded"])
    if not rows:
        return
    params = {
        "ids": [job_id for (job_id,) in rows],
        "reason": "superseded",
        "message": "a newer window of its schedule is due (overlap cancel-running)",
        "who": None,
        "source": None,
    }
    yield Statement(sql["cancel_jobs"], params)


@dataclass(slots=True)
class Memory:
    """What one turn of keeping outcomes leaves to the next: where it was, and who was told of."""

    place: Place = (0, 0)
    stuck: set[int] = field(default_factory=set)


def settle_windows(sql: Sql, memory: Memory | None = None) -> Steps[int]:
    """Keep how windows ended, for when their jobs are gone; returns how many.

    Looks at 20,000 open windows at most, and at the others the next time. Tells of schedules whose
    windows fail again and again, at each failure, and once of those that are stuck.
    """
    memory = memory or Memory()
    settled = 0
    failed: set[int] = set()
    looked_at: set[int] = set()
    for _ in range(PAGES):
        place, some = yield from in_transaction(_settle_some(sql, memory.place))
        memory.place = place or (0, 0)
        settled += some.kept
        failed |= some.failed
        looked_at |= some.looked_at
        if place is None:
            break
    if looked_at:
        yield from _tell(sql, failed, looked_at, memory.stuck)
    return settled


def _tell(sql: Sql, failed: set[int], looked_at: set[int], told: set[int]) -> Steps[None]:
    rows = yield Statement(sql["list_problems"], {"ids": sorted(looked_at)})
    stuck = {schedule_id: name for schedule_id, name, problems, *_ in rows if "stuck" in problems}
    for schedule_id, name, problems, in_a_row, *_ in rows:
        if "failing" in problems and schedule_id in failed:
            emit(ScheduleUnhealthy(name, f"its last {in_a_row} windows failed"))
    for schedule_id, name in stuck.items():
        if schedule_id not in told:
            emit(ScheduleUnhealthy(name, "a window has been open for longer than it should"))
    told -= looked_at - set(stuck)
    told |= set(stuck)


class _Settled(NamedTuple):
    kept: int
    failed: set[int]
    looked_at: set[int]


def _settle_some(sql: Sql, place: Place) -> Steps[tuple[Place | None, _Settled]]:
    schedule_id, window_id = place
    params = {"after_schedule": schedule_id, "after": window_id, "n": SETTLED_A_STATEMENT}
    locked = yield Statement(sql["lock_open_windows"], params)
    if not locked:
        return None, _Settled(0, set(), set())
    ids = [found for (_, found) in locked]
    ((count, failed),) = yield Statement(sql["settle_windows"], {"ids": ids})
    return locked[-1], _Settled(count, set(failed), {found for (found, _) in locked})

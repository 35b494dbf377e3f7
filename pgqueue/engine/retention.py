"""Drop whole days of finished jobs that are old, or beyond the number that is kept.

A day is detached concurrently, then dropped: finishes go on meanwhile, even while a reader holds a
transaction on finished_jobs. Such a reader makes the day wait for a later pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import psycopg

from pgqueue.db.run import Batch, Rows, Statement, Steps
from pgqueue.engine.workflow import pass_told

Sql = Mapping[str, str]

LINES = 5000
"""Log lines, or steps, that one statement deletes at most; the statements name it, too."""

_PARTITION = re.compile(r"finished_jobs_(completed|failed)_\d{8}")
_GROUP = re.compile(r"finished_jobs_(completed|failed)")


@dataclass(frozen=True, slots=True)
class Day:
    """One partition: the jobs of one state group that finished on one UTC day."""

    parent: str
    partition: str
    date: date
    is_pending: bool
    is_old: bool
    is_recent: bool
    keep_count: int | None
    states: list[str]


@dataclass(frozen=True, slots=True)
class Pruned:
    """Which partitions were dropped, and which wait for a reader to end its transaction."""

    dropped: tuple[str, ...] = ()
    postponed: tuple[str, ...] = ()


def find_days(sql: Sql) -> Steps[list[Day]]:
    """All day partitions, oldest first."""
    rows: Rows = yield Statement(sql["find_days"])
    return [Day(*row) for row in rows]


def plan_retention(sql: Sql) -> Steps[list[Day]]:
    """The days that the table `retention` lets go, oldest first; never today or yesterday."""
    days = yield from find_days(sql)
    doomed: set[str] = {day.partition for day in days if day.is_pending}
    for parent in sorted({day.parent for day in days}):
        group = [day for day in days if day.parent == parent and not day.is_pending]
        doomed |= {day.partition for day in group if day.is_old and not day.is_recent}
        doomed |= yield from _beyond_count(sql, group)
    return [day for day in days if day.partition in doomed]


def _beyond_count(sql: Sql, days: Sequence[Day]) -> Steps[set[str]]:
    """The days whose younger ones hold as many jobs as are to be kept."""
    if not days or days[0].keep_count is None:
        return set()
    missing = days[0].keep_count
    beyond: set[str] = set()
    for day in reversed(days):
        if missing <= 0 and not day.is_recent:
            beyond.add(day.partition)
        if missing > 0:
            params = {"states": day.states, "day": day.date, "most": missing}
            ((count,),) = yield Statement(sql["count_day"], params)
            missing -= count
    return beyond


def apply_retention(sql: Sql, *, concurrently: bool) -> Steps[Pruned]:
    """One pass: what an earlier one left half done, then the days that are to go.

    For an autocommit connection. `concurrently` needs a session of our own; behind a pooler a plain
    detach holds up finishes for up to 100 ms where somebody reads.
    """
    dropped: list[str] = []
    postponed: list[str] = []
    for (partition,) in (yield Statement(sql["find_detached"])):
        was = yield from _tried(_drop(sql, partition))
        (dropped if was else postponed).append(partition)
    days = yield from plan_retention(sql)
    if days:
        # Nobody may have worked since they ended: who waits for them learns how they did.
        yield from pass_told(sql)
    busy: set[str] = set()
    for day in days:
        if day.parent in busy:
            # One detach at a time may be pending in a group.
            postponed.append(day.partition)
        elif (yield from _tried(_let_go(sql, day, concurrently=concurrently))):
            dropped.append(day.partition)
        else:
            busy.add(day.parent)
            postponed.append(day.partition)
    return Pruned(tuple(dropped), tuple(postponed))


def _tried(steps: Steps[None]) -> Steps[bool]:
    """Whether the steps got their locks."""
    try:
        yield from steps
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _let_go(sql: Sql, day: Day, *, concurrently: bool) -> Steps[None]:
    if day.is_pending:
        yield _briefly(sql, _of_day(sql["finalize_day"], day))
    else:
        yield from clean_day(sql, day)
        yield _briefly(sql, _of_day(sql["mark_day"], day))
        if concurrently:
            yield from _detach_concurrently(sql, day)
        else:
            yield _briefly(sql, _of_day(sql["detach_day"], day))
    yield from _drop(sql, day.partition)


def clean_day(sql: Sql, day: Day) -> Steps[int]:
    """Delete the log lines and steps of a day's jobs, in small statements; how many went."""
    lines = yield from _clean(sql["clean_logs"], day)
    steps = yield from _clean(sql["clean_steps"], day)
    return lines + steps


def _clean(statement: str, day: Day) -> Steps[int]:
    deleted, after = 0, 0
    place: int | None
    count: int
    while True:
        params = {"states": day.states, "day": day.date, "after": after}
        ((place, count),) = yield Statement(statement, params)
        deleted += count
        if place is None:
            return deleted
        if count < LINES:
            after = place


def _detach_concurrently(sql: Sql, day: Day) -> Steps[None]:
    # Not allowed inside a transaction, so the wait is set for the session and taken back.
    yield Statement(sql["ddl_wait_of_session"])
    try:
        yield _of_day(sql["detach_day_concurrently"], day)
    except psycopg.Error:
        yield Statement(sql["ddl_wait_over"])
        raise
    yield Statement(sql["ddl_wait_over"])


def _drop(sql: Sql, partition: str) -> Steps[None]:
    yield _briefly(sql, Statement(_named(sql["drop_day"], partition=partition)))


def _briefly(sql: Sql, statement: Statement) -> Batch:
    return Batch((Statement(sql["ddl_wait"]), statement))


def _of_day(text: str, day: Day) -> Statement:
    return Statement(_named(text, partition=day.partition, parent=day.parent))


def _named(text: str, *, partition: str, parent: str = "finished_jobs_completed") -> str:
    """The statement with the names of ours put in; nothing else may get into its text."""
    if not (_PARTITION.fullmatch(partition) and _GROUP.fullmatch(parent)):
        raise ValueError(f"not a partition of finished_jobs: {parent}, {partition}")
    return text.replace("some_partition", partition).replace("some_group", parent)

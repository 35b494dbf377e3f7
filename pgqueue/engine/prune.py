"""Retention at an operator's wish: make partitions ahead, drop what is old, now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.chores import Holder, Offer, finish_chore, hasten_chore, held, take_chore
from pgqueue.engine.claim import new_lease
from pgqueue.engine.operate import Operator
from pgqueue.engine.retention import Pruned, apply_retention
from pgqueue.errors import ChoreLost

Sql = Mapping[str, str]

CHORE = "retention"
HOLD = 10.0
"""Seconds that workers leave the chore to us after our last statement."""


def prune(
    sql: Sql, operator: Operator, *, concurrently: bool, clock: Callable[[], float]
) -> Steps[Pruned]:
    """One pass; for an autocommit connection, `clock` counts seconds.

    Raises ChoreLost while a worker is at it.
    """
    # Workers have positive ids.
    holder = Holder(-new_lease() - 1, HOLD)
    began = clock()
    yield from hasten_chore(sql, CHORE)
    taken = yield from take_chore(sql, [Offer(CHORE)], holder)
    if taken.name is None:
        raise ChoreLost(CHORE)
    try:
        pass_ = _pass(sql, concurrently=concurrently)
        pruned = yield from held(sql, CHORE, holder, pass_, clock)
    except Exception as error:
        yield from finish_chore(sql, CHORE, holder, clock() - began, type(error).__name__)
        raise
    yield from finish_chore(sql, CHORE, holder, clock() - began)
    if pruned.dropped or pruned.postponed:
        did = {"dropped": list(pruned.dropped), "postponed": list(pruned.postponed)}
        yield Statement(sql["record_prune"], {**did, **operator.params})
    return pruned


def _pass(sql: Sql, *, concurrently: bool) -> Steps[Pruned]:
    yield Statement(sql["make_partitions"])
    return (yield from apply_retention(sql, concurrently=concurrently))

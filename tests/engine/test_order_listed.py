"""The list of limits says which job those in an order wait for, where its slot looks free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from admitting import fail_and_hold, let_in, sending
from endings import end
from pgqueue import Limit, Order, PgQueue
from pgqueue.engine.limits import Pass
from proving import rows

NAME = "ordered:customer:a"


def _usage(pgq: PgQueue, name: str = NAME) -> tuple[Any, ...]:
    (usage,) = pgq.limits(name)
    return usage["used"], usage["free"], usage["held_by"]


def test_one_that_runs(database: str, pgq: PgQueue, passing: Callable[..., Pass]) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    assert let_in(database) == [first]
    assert _usage(pgq) == (1, 0, first)


def test_one_that_waits_for_its_retry(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    rows(
        database,
        "update pgqueue.jobs set state = 'blocked', blocked_on = '@new', admitted_seq = null, "
        "run_at = now() + interval '1 hour' where id = %s",
        [first],
    )
    passing()
    assert _usage(pgq) == (0, 0, first)


def test_one_that_waits_for_another_limit(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=0), ordered_by="customer:{customer}")
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    assert _usage(pgq) == (0, 0, first)
    assert _usage(pgq, "email") == (0, 0, None)


def test_one_that_failed_for_good_until_it_is_retried(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    passing()
    assert _usage(pgq) == (0, 0, first)
    pgq.retry(first)
    passing()
    assert _usage(pgq) == (1, 0, first)


def test_nobody_where_the_next_one_may_come_in(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    end(database, first)
    assert _usage(pgq) == (0, 1, None)


def test_nobody_where_it_is_no_order(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=1))
    send.enqueue_many([{}] * 2)
    passing()
    assert _usage(pgq, "email") == (1, 0, None)

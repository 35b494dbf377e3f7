"""Order by key: strictly one after another, and what a failed job does to those behind it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from admitting import fail_and_hold, let_in, sending
from endings import end
from pgqueue import Order, PgQueue
from pgqueue.engine.limits import Pass
from proving import rows, value


def test_jobs_of_one_key_go_one_after_another_in_the_order_of_their_times(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    first, other = send.enqueue(customer="a").id, send.enqueue(customer="b").id
    second, third = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    assert set(let_in(database)) == {first, other}
    # It comes back, and keeps its place.
    rows(
        database,
        "update pgqueue.jobs set state = 'blocked', blocked_on = '@new', admitted_seq = null, "
        "run_at = now() + interval '1 hour' where id = %s",
        [first],
    )
    assert passing().admitted == passing().admitted == 0
    # Both of them, though only one stands in the line.
    assert pgq.why(third)[0].message == (
        "jobs of 'customer:a' run one after another: 2 wait before it, "
        f"job {first} first: pgq jobs why {first}"
    )
    assert [cause.cause for cause in pgq.why(first)] == ["future"]
    end(database, first)
    assert passing("ordered:customer:a").admitted == 1
    assert second in let_in(database)


@pytest.mark.parametrize("policy", ["pass", "hold"])
def test_a_job_that_failed_for_good_holds_its_order_or_lets_it_pass(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], policy: str
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure=policy))
    first, second = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    if policy == "pass":
        assert passing().admitted == 1
        return
    assert passing().admitted == 0
    assert pgq.why(second)[0].cause == "order-held"
    assert pgq.retry(first).retried == (first,)
    passing()
    assert let_in(database) == [first]
    end(database, first)
    passing("ordered:customer:a")
    assert let_in(database) == [second]


def test_a_held_order_goes_on_when_the_failed_job_is_deleted(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    assert passing().admitted == 0
    pgq.delete(first)
    assert passing().admitted == 1


def test_an_order_needs_its_key(pgq: PgQueue, database: str) -> None:
    @pgq.task(name="send", ordered_by="customer:{customer}")
    def send(customer: str | None = None) -> None: ...

    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match=r"ordered_by names \{customer\}"
    ):
        send.enqueue()
    assert value(database, "select count(*) from pgqueue.jobs") == 0

"""What the doctor and the views say of limits: lines that stand, orders that are held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from admitting import let_in, passing_on, sending
from endings import end, run_on, worker
from pgqueue import Limit, Order, PgQueue
from pgqueue.db.pools import connect
from pgqueue.engine.limits import Pass
from proving import Clock, rows, value

STUCK = "select id, state, reason, since from pgqueue.stuck_jobs"


@pytest.fixture
def clock(database: str) -> Clock:
    return Clock(database)


@pytest.fixture
def passing(database: str, pgq: PgQueue, clock: Clock) -> Callable[..., Pass]:
    return passing_on(pgq, database)


def _said(pgq: PgQueue, check: str = "limits") -> list[tuple[str, str, str]]:
    found = [one for one in pgq.examine() if one.check == check]
    return [(str(one.level), one.message, one.advice) for one in found]


def _beat(database: str) -> None:
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock()")


def test_limits_that_hold_and_lines_that_move_are_fine(
    pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue_many([{}] * 3)
    passing()
    assert _said(pgq) == [("ok", "none is exceeded, and every line moves", "")]


def test_a_limit_that_is_exceeded_is_an_error(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue_many([{}] * 2)
    clock.move(seconds=1)
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', blocked_on = null, admitted_seq = id, "
        "run_at = pgqueue.clock_now()",
    )
    ((level, message, _),) = _said(pgq)
    assert (level, message) == ("error", "limit 'email' is exceeded: 2 of 1 at once")


def test_an_order_that_a_failed_job_holds_is_told_until_that_job_is_gone(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, second, _ = (send.enqueue(customer="a").id for _ in range(3))
    passing()
    end(database, first, state="failed")
    with connect(database) as connection:
        connection.execute(pgq.sql["hold_orders"], {"ids": [first]})
    passing()
    assert rows(database, STUCK) == [(second, "blocked", "order-held", clock.at)]
    assert _said(pgq) == [
        (
            "warning",
            f"2 jobs of 'ordered:customer:a' wait: job {first} before them failed for good",
            f"pgq jobs retry {first}, or pgq jobs delete {first}",
        )
    ]
    pgq.delete(first)
    assert rows(database, STUCK) == []
    assert _said(pgq)[0][0] == "ok"


def test_a_line_before_slots_that_are_held_for_an_hour_is_told(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    first, *_ = sending(pgq, Limit("email", running=1)).enqueue_many([{}] * 3)
    passing()
    run_on(database, first, worker(database))
    clock.move(minutes=61)
    _beat(database)
    passing()
    ((level, message, _),) = _said(pgq)
    assert level == "warning"
    assert message == (
        "2 jobs wait for limit 'email', whose 1 slots have been held for 61 minutes by jobs "
        f"{let_in(database)[0]}"
    )


def test_a_limit_that_lets_nobody_in_is_told_while_somebody_waits(
    pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=1))
    pgq.set_limit("email", running=0)
    assert _said(pgq)[0][0] == "ok"
    send.enqueue()
    passing()
    assert _said(pgq) == [
        (
            "warning",
            "limit 'email' lets nobody in, and 1 jobs wait",
            "pgq limits reset email, or set another",
        )
    ]


def test_limited_jobs_that_nobody_can_run_are_stuck_as_others_are(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    job = sending(pgq, Limit("email", running=1)).enqueue()
    due = clock.at
    passing(tasks=("another",))
    assert value(database, "select jobs from pgqueue.unknown_tasks") == 1
    clock.move(minutes=6)
    assert rows(database, STUCK) == [(job.id, "blocked", "no-worker", due)]
    # And where no worker has come at all since.
    sending(PgQueue(database), Limit("email", running=1)).enqueue()
    assert value(database, "select jobs from pgqueue.unknown_tasks") == 2


def test_newcomers_that_nobody_looks_at_are_told(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue()
    assert _said(pgq)[0][0] == "ok"
    clock.move(minutes=6)
    ((level, message, _),) = _said(pgq)
    assert level == "warning"
    assert message == "1 jobs with limits came over 5 minutes ago, and no worker lets them in"

"""Lines that got room while nobody said so are found among many that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from admitting import fail_and_hold, let_in, sending
from endings import end
from pgqueue import Limit, Order, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.limits import Pass, find_free_lines
from proving import rows

RETRIED_LATER = """
insert into pgqueue.jobs (task, queue, state, limits, blocked_on, order_name, run_at)
select 'send', 'default', 'blocked', array[name],
  case when n = 1 then '@run_at' else name end, name, now() + (2 - n) * interval '1 hour'
from generate_series(1, %s) as k, generate_series(1, 2) as n,
  lateral (select 'ordered:customer:' || lpad(k::text, 6, '0')) as names (name)
"""
"""Orders of two jobs: the first waits for its retry, the second stands in the line."""


@pytest.fixture
def look(pgq: PgQueue, database: str) -> Iterator[Callable[[], list[str]]]:
    """All that is found, one look after another."""
    with connect(database) as connection:

        def go() -> list[str]:
            found: list[str] = []
            after = ""
            while True:
                names, after = run(connection, find_free_lines(pgq.sql, after, 0))
                found += names
                if not after:
                    return found

        yield go


def test_the_one_order_whose_next_job_may_run(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], look: Callable[[], list[str]]
) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    first, second = (send.enqueue(customer="9").id for _ in range(2))
    passing()
    rows(database, RETRIED_LATER, [5000])
    assert look() == []
    end(database, first)
    assert look() == ["ordered:customer:9"]
    assert passing(*look()).admitted == 1
    assert let_in(database) == [second]
    assert look() == []


def test_an_order_that_a_failed_job_holds_is_none(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], look: Callable[[], list[str]]
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, _ = (send.enqueue(customer="9").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    assert look() == []


def test_a_limit_that_no_job_holds(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], look: Callable[[], list[str]]
) -> None:
    send = sending(pgq, Limit("to:{customer}", running=1))
    jobs = [send.enqueue(customer=customer).id for customer in ("a", "b", "a", "b")]
    passing()
    assert look() == []
    end(database, jobs[1])
    assert look() == ["to:b"]


def test_many_that_are_found_come_by_and_by(
    database: str, pgq: PgQueue, look: Callable[[], list[str]]
) -> None:
    sending(pgq, ordered_by="customer:{customer}")
    rows(database, RETRIED_LATER, [150])
    rows(database, "delete from pgqueue.jobs where blocked_on = '@run_at'")
    found = look()
    assert len(found) == len(set(found)) == 150


def test_places_that_are_no_limits_are_none(
    database: str, pgq: PgQueue, look: Callable[[], list[str]]
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue()
    assert look() == []


@pytest.mark.parametrize("statistics", ["none", "of an empty table", "of now"])
def test_a_look_reads_an_entry_or_two_of_each_line(
    database: str, pgq: PgQueue, statistics: str
) -> None:
    sending(pgq, ordered_by="customer:{customer}")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table pgqueue.jobs set (autovacuum_enabled = off)")
        if statistics == "of an empty table":
            connection.execute("analyze pgqueue.jobs")
        connection.execute(RETRIED_LATER, [5000])
        if statistics == "of now":
            connection.execute("analyze pgqueue.jobs")
        assert _read(connection, pgq) < 15 * 2000


def _read(connection: psycopg.Connection[Any], pgq: PgQueue) -> int:
    """Pages that a look of 2000 lines read."""
    with connection.transaction():
        connection.execute("set local enable_seqscan = off")
        connection.execute("set local plan_cache_mode = force_generic_plan")
        ((plan,),) = connection.execute(
            "explain (format json, analyze, buffers, timing off) " + pgq.sql["find_free_lines"],
            {"after": "", "lowest": 0},
            prepare=True,
        ).fetchall()
    found = plan[0]["Plan"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])

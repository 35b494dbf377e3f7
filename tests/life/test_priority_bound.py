"""However many jobs of high priority arrive, one of low priority starts within bounded claims."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgqueue.db.run import Rows, Statement, Steps, ask, run
from pgqueue.engine.claim import claim_jobs, claimed_of_rows, look_around, look_of_rows, new_lease
from pgqueue.engine.enqueue import enqueue_job, enqueue_jobs
from pgqueue.job import NewJob
from pgqueue.sql import load
from pgqueue.worker.lanes import PROMOTE_EVERY, LaneBook

SQL = load("pgqueue.sql", "pgqueue")
PER_CLAIM = 10


@pytest.mark.parametrize("queues", [1, 2, 5])
@pytest.mark.parametrize("sweeping", [True, False])
def test_a_flood_of_nines_delays_a_zero_by_a_bounded_number_of_claims(
    database: str, queues: int, *, sweeping: bool
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        worst = max(_claims_until_it_starts(connection, queues, sweep=sweeping) for _ in range(5))
    lanes = queues + 1
    assert 1 < worst <= PROMOTE_EVERY * lanes


def _claims_until_it_starts(
    connection: psycopg.Connection[Any], queues: int, *, sweep: bool
) -> int:
    book = LaneBook([], lambda: 0.5)
    connection.execute("delete from pgqueue.jobs")
    _flood(connection, queues)
    wanted = run(connection, enqueue_job(SQL, NewJob("t", "q0", {}, priority=0))).id
    for claims in range(1, 1000):
        _flood(connection, queues)
        found = look_of_rows(run(connection, ask(look_around(SQL, 0)))).lanes
        book.found((queue, priority) for queue, priority, _ in found)
        lanes = book.order(sweep=sweep)
        lease = new_lease()
        statement = claim_jobs(
            SQL, lanes, ["t"], worker_id=1, lease=lease, limit=PER_CLAIM, suspects=True
        )
        claimed = claimed_of_rows(lease, run(connection, _one(statement)))
        assert len(claimed.jobs) == PER_CLAIM
        book.saw(claimed, sweep=sweep, seconds=1.0, now=0.0)
        if any(job.id == wanted for job in claimed.jobs):
            return claims
    raise AssertionError("it starved")


def _one(statement: Statement) -> Steps[Rows]:
    rows: Rows = yield statement
    return rows


def _flood(connection: psycopg.Connection[Any], queues: int) -> None:
    """More of priority 9 in each queue than one claim takes."""
    new = [NewJob("t", f"q{queue}", {}, priority=9) for queue in range(queues)]
    run(connection, enqueue_jobs(SQL, new * (PER_CLAIM + 1)))

"""Debounce: a newer event replaces the payload of the job that waits, and its time if asked to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pgqueue import PgQueue
from pgqueue.db.run import run
from pgqueue.engine.enqueue import enqueue_jobs
from pgqueue.job import NewJob
from pgqueue.sql import load
from proving import Clock, rows

KEYED: dict[str, Any] = {"unique_key": "k", "unique_mode": "replace"}
WAITING = "select payload, run_at, scheduled_at from pgqueue.jobs"


def test_without_a_time_of_its_own_it_leaves_the_time_alone(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    @pgq.task
    def index(page: int) -> None: ...

    due = clock.at + timedelta(minutes=15)
    index.using(**KEYED, delay=900).enqueue(page=1)
    index.using(**KEYED).enqueue(page=2)
    assert rows(database, WAITING) == [({"page": 2}, due, due)]
    index.using(**KEYED).enqueue_many([{"page": 3}])
    assert rows(database, WAITING) == [({"page": 3}, due, due)]


def test_with_a_time_it_takes_that_time(pgq: PgQueue, database: str, clock: Clock) -> None:
    @pgq.task
    def index(page: int) -> None: ...

    index.using(**KEYED, delay=900).enqueue(page=1)
    clock.move(seconds=60)
    index.using(**KEYED, delay=900).enqueue(page=2)
    due = clock.at + timedelta(minutes=15)
    assert rows(database, WAITING) == [({"page": 2}, due, due)]
    index.using(**KEYED, run_at=clock.at).enqueue(page=3)
    assert rows(database, WAITING) == [({"page": 3}, clock.at, clock.at)]


def test_a_batch_may_mix_jobs_with_keys_and_jobs_with_times(database: str) -> None:
    due = datetime(2040, 1, 1, tzinfo=UTC)
    batch = [NewJob("t", "q", {}, unique_key="k"), NewJob("t", "q", {}, run_at=due)]
    with psycopg.connect(database, autocommit=True) as connection:
        ids = run(connection, enqueue_jobs(load("pgqueue.sql", "pgqueue"), batch))
    found = rows(database, "select id, run_at = %s from pgqueue.jobs order by id", [due])
    assert found == [(ids[0], False), (ids[1], True)]

"""The sweep deletes what nobody needs any more, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.sweep import sweep
from proving import Clock, rows, value


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as own:
        yield own


def test_unique_keys_go_when_their_period_is_over(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    rows(
        database,
        "insert into pgqueue.unique_keys (key, job_id, until) "
        "select n::text, n, pgqueue.clock() + n * interval '1 second' "
        "from generate_series(1, 2500) as n",
    )
    clock.move(seconds=2400)
    assert run(connection, sweep(pgq.sql)) == 2400
    assert value(database, "select min(job_id) from pgqueue.unique_keys") == 2401


def test_a_key_that_somebody_takes_at_this_moment_is_left_alone(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    insert = "insert into pgqueue.unique_keys values ('k', 1, pgqueue.clock())"
    rows(database, insert)
    with psycopg.connect(database) as taker:
        taker.execute(
            "update pgqueue.unique_keys set job_id = 2, until = pgqueue.clock() + interval '1 h'"
        )
        connection.execute("set lock_timeout = '1ms'")
        assert run(connection, sweep(pgq.sql)) == 0
        taker.commit()
    assert run(connection, sweep(pgq.sql)) == 0
    assert value(database, "select job_id from pgqueue.unique_keys") == 2


def test_the_audit_log_is_kept_for_a_year(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    insert = "insert into pgqueue.audit_log (who, source, action, target) values (%s, %s, %s, %s)"
    rows(database, insert, ["ann", "cli", "pause", "queue email"])
    clock.move(days=364)
    rows(database, insert, ["bob", "cli", "resume", "queue email"])
    assert run(connection, sweep(pgq.sql)) == 0
    clock.move(days=2)
    assert run(connection, sweep(pgq.sql)) == 1
    assert value(database, "select who from pgqueue.audit_log") == "bob"


def test_log_lines_go_with_their_jobs_and_stay_with_live_and_finished_ones(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    rows(database, "select pgqueue.make_partitions()")

    @pgq.task
    def work() -> None: ...

    live, ended = work.enqueue(), work.enqueue()
    pgq.cancel(ended.id)
    insert = "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 1, 'said')"
    for job_id in (live.id, ended.id, 10**9) * 2:
        rows(database, insert, [job_id])
    rows(
        database,
        "insert into pgqueue.job_logs (job_id, attempt, message) "
        "select 1000000 + n, 1, 'said' from generate_series(1, 2500) as n",
    )
    # Not before the longest retention is over: the lines of a finished job go with its day.
    assert run(connection, sweep(pgq.sql)) == 0
    clock.move(days=32)
    rows(database, insert, [10**9 + 1])
    assert run(connection, sweep(pgq.sql)) == 2502
    left = rows(database, "select job_id, count(*) from pgqueue.job_logs group by 1 order by 1")
    assert left == sorted([(live.id, 2), (ended.id, 2), (10**9 + 1, 1)])


def test_steps_go_with_their_jobs_and_stay_with_live_and_finished_ones(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    rows(database, "select pgqueue.make_partitions()")

    @pgq.task
    def work() -> None: ...

    live, ended = work.enqueue(), work.enqueue()
    pgq.cancel(ended.id)
    step = (
        "insert into pgqueue.job_steps (job_id, kind, name, attempt, finished_at, result) "
        "select id, 'step', n::text, 1, now(), '1' from unnest(%s::bigint[]) as id, "
        "generate_series(1, 700) as n"
    )
    rows(database, step, [[live.id, ended.id, 10**9, 10**9 + 1, 10**9 + 2]])
    assert run(connection, sweep(pgq.sql)) == 0, "a finished job may be as old as the retention"
    clock.move(days=32)
    assert run(connection, sweep(pgq.sql)) == 2100
    left = rows(database, "select distinct job_id from pgqueue.job_steps order by 1")
    assert left == [(live.id,), (ended.id,)]


def test_events_are_kept_for_thirty_days_after_their_delivery(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    rows(
        database,
        "insert into pgqueue.events (name, key, delivered_at) "
        "select 'paid', n::text, case when n > 1 then pgqueue.clock() end "
        "from generate_series(1, 1500) as n",
    )
    clock.move(days=29)
    assert run(connection, sweep(pgq.sql)) == 0
    clock.move(days=2)
    assert run(connection, sweep(pgq.sql)) == 1499
    assert value(database, "select key from pgqueue.events") == "1"

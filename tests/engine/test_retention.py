"""Finished jobs go by whole days, and nobody waits for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.retention import Pruned, apply_retention, clean_day, plan_retention
from proving import Clock, rows, value


@pytest.fixture
def operator(database: str) -> Iterator[psycopg.Connection[Any]]:
    """The connection that retention works on."""
    with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def first_day(pgq: PgQueue, clock: Clock, operator: psycopg.Connection[Any]) -> None:
    """The time is noon of the first of January 2030, and only its partitions are there."""
    assert clock.at == datetime(2030, 1, 1, 12, tzinfo=UTC)
    operator.execute("select pgqueue.make_partitions()")
    assert prune(pgq, operator).postponed == ()


FINISH = """
insert into pgqueue.finished_jobs (
  id, task, queue, priority, state, payload, tags, limits, run_at, scheduled_at, attempt,
  max_attempts, created_at, errors, headers
)
select
  nextval(pg_get_serial_sequence('pgqueue.jobs', 'id')), 'made', 'default', 5, %(state)s, '{}',
  '{}', '{}', now(), now(), 1, 1, pgqueue.clock_now(), '[]', '{}'
from generate_series(1, %(count)s)
returning id
"""


def finish(url: str, count: int = 1, state: str = "completed") -> list[int]:
    return [row[0] for row in rows(url, FINISH, {"count": count, "state": state})]


def move_to(url: str, clock: Clock, **by: float) -> None:
    clock.move(**by)
    rows(url, "select pgqueue.make_partitions()")


def prune(pgq: PgQueue, connection: psycopg.Connection[Any]) -> Pruned:
    return run(connection, apply_retention(pgq.sql, concurrently=True))


def days(url: str) -> set[str]:
    found = rows(
        url,
        "select relname from pg_class where relnamespace = 'pgqueue'::regnamespace "
        "and relkind = 'r' and relname ~ '[0-9]{8}$'",
    )
    return {name for (name,) in found}


def test_completed_jobs_are_kept_for_7_days_and_failed_ones_for_30(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    for state in ("completed", "failed", "cancelled"):
        finish(database, state=state)
    for _ in range(7):
        move_to(database, clock, days=1)
    assert not any("completed_20300101" in name for name in prune(pgq, operator).dropped)
    move_to(database, clock, days=1)
    assert "finished_jobs_completed_20300101" in prune(pgq, operator).dropped
    assert dict(rows(database, "select state, count(*) from pgqueue.finished_jobs group by 1")) == {
        "failed": 1,
        "cancelled": 1,
    }
    move_to(database, clock, days=14)
    move_to(database, clock, days=9)
    assert "finished_jobs_failed_20300101" in prune(pgq, operator).dropped
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0


def test_today_and_yesterday_are_never_dropped(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    finish(database, 3)
    rows(
        database,
        "update pgqueue.retention set keep = interval '1 hour', keep_count = 0 "
        "where state_group <> 'windows'",
    )
    move_to(database, clock, days=1)
    prune(pgq, operator)
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 3
    move_to(database, clock, days=1)
    prune(pgq, operator)
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0


def test_the_oldest_days_go_while_younger_ones_hold_as_many_as_are_kept(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    rows(database, "update pgqueue.retention set keep_count = 5 where state_group = 'completed'")
    for _ in range(4):
        finish(database, 3)
        finish(database, 3, "failed")
        move_to(database, clock, days=1)
    prune(pgq, operator)
    kept = rows(
        database,
        "select distinct finished_at::date::text from pgqueue.finished_jobs "
        "where state = 'completed' order by 1",
    )
    # 3 of the 4th and 3 of the 3rd are at least 5; without the 3rd there would be 3 left.
    assert kept == [("2030-01-03",), ("2030-01-04",)]
    failed = value(database, "select count(*) from pgqueue.finished_jobs where state = 'failed'")
    assert failed == 12


def test_without_a_row_in_retention_everything_is_kept(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    rows(database, "delete from pgqueue.retention")
    finish(database)
    move_to(database, clock, days=400)
    assert prune(pgq, operator) == Pruned()


def test_a_plan_drops_nothing(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    move_to(database, clock, days=12)
    before = days(database)
    planned = run(operator, plan_retention(pgq.sql))
    assert [day.partition for day in planned] == [
        f"finished_jobs_completed_{day:%Y%m%d}" for day in _days("2029-12-31", "2030-01-06")
    ]
    assert days(database) == before


def _days(first: str, last: str) -> list[datetime]:
    start, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
    return [start + timedelta(days=number) for number in range((end - start).days)]


def test_log_lines_go_before_the_day_of_their_jobs(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    log = "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 1, 'said')"
    old = finish(database, 2500)
    for job_id in (old[0], old[1200], old[-1]):
        rows(database, log, [job_id])
    # More than one statement deletes at once.
    rows(
        database,
        "insert into pgqueue.job_logs (job_id, attempt, message) "
        "select %s, 1, n::text from generate_series(1, 12000) as n",
        [old[7]],
    )
    move_to(database, clock, days=5)
    (young,) = finish(database)
    rows(database, log, [young])
    move_to(database, clock, days=5)
    prune(pgq, operator)
    assert rows(database, "select job_id from pgqueue.job_logs") == [(young,)]


def test_steps_go_before_the_day_of_their_jobs(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    step = (
        "insert into pgqueue.job_steps (job_id, kind, name, attempt, finished_at, result) "
        "select %s, 'step', n::text, 1, now(), '1' from generate_series(1, %s) as n"
    )
    old = finish(database, 1500)
    for job_id, count in ((old[0], 1), (old[7], 6000), (old[-1], 1)):
        rows(database, step, [job_id, count])
    move_to(database, clock, days=5)
    (young,) = finish(database)
    rows(database, step, [young, 1])
    move_to(database, clock, days=5)
    prune(pgq, operator)
    assert rows(database, "select job_id from pgqueue.job_steps") == [(young,)]


def test_finishes_do_not_wait_while_somebody_reads_finished_jobs(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    finish(database)
    move_to(database, clock, days=10)
    with psycopg.connect(database) as reader, connect(database) as worker:
        reader.execute("select count(*) from pgqueue.finished_jobs")
        pruned = prune(pgq, operator)
        assert pruned.dropped == ()
        assert "finished_jobs_completed_20300101" in pruned.postponed
        # The detach is pending now: the state that a finish has to get along with.
        assert value(database, "select count(*) from pg_inherits where inhdetachpending") == 1
        worker.execute("set lock_timeout = '1ms'")
        worker.execute(FINISH, {"count": 1, "state": "completed"})
        # Making partitions goes on, too; otherwise finishes would stop some days later.
        clock.move(days=3)
        assert value(database, "select pgqueue.make_partitions()") == 6
        reader.rollback()
    assert "finished_jobs_completed_20300101" in prune(pgq, operator).dropped
    assert value(database, "select count(*) from pg_inherits where inhdetachpending") == 0
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 1


def test_a_finish_goes_on_while_a_detach_waits(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    del pgq
    move_to(database, clock, days=10)
    (name,) = sorted(day for day in days(database) if "completed_20300101" in day)
    with psycopg.connect(database) as reader, connect(database) as worker:
        reader.execute("select count(*) from pgqueue.finished_jobs")
        # Without a lock_timeout: it waits for the reader, for as long as this test likes.
        operator.pgconn.send_query(
            f"alter table pgqueue.finished_jobs_completed detach partition pgqueue.{name} "
            "concurrently".encode()
        )
        waiting = "select true from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
        while not worker.execute(waiting, [operator.info.backend_pid]).fetchone():
            pass
        worker.execute("set lock_timeout = '1ms'")
        worker.execute(FINISH, {"count": 1, "state": "completed"})
        reader.rollback()
    while result := operator.pgconn.get_result():
        assert result.error_message == b""


def test_a_partition_that_was_detached_and_not_dropped_goes_at_the_next_pass(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    move_to(database, clock, days=10)
    detach = "alter table pgqueue.finished_jobs_completed detach partition pgqueue."
    ours, theirs = "finished_jobs_completed_20300101", "finished_jobs_completed_20300102"
    for name in (ours, theirs):
        operator.execute(f"{detach}{name} concurrently".encode())
    operator.execute(f"comment on table pgqueue.{ours} is 'dropped by retention'".encode())
    assert ours in prune(pgq, operator).dropped
    # Somebody who detaches a day by hand wants to keep it.
    assert days(database) & {ours, theirs} == {theirs}


def test_the_wait_for_locks_is_as_before_afterwards(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    move_to(database, clock, days=10)
    with psycopg.connect(database) as reader:
        reader.execute("select count(*) from pgqueue.finished_jobs")
        assert prune(pgq, operator).postponed
        assert operator.execute("show lock_timeout").fetchone() == ("0",)
    assert prune(pgq, operator).dropped
    assert operator.execute("show lock_timeout").fetchone() == ("0",)


def test_behind_a_pooler_days_go_without_a_setting_of_the_session(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    move_to(database, clock, days=10)
    pruned = run(operator, apply_retention(pgq.sql, concurrently=False))
    assert "finished_jobs_completed_20300101" in pruned.dropped
    assert not re.search("20300101", " ".join(d for d in days(database) if "completed" in d))


def test_retention_leaves_no_dead_rows_in_jobs(
    pgq: PgQueue, database: str, clock: Clock, operator: psycopg.Connection[Any]
) -> None:
    job_id = finish(database)[0]
    rows(
        database,
        "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 1, 'said')",
        [job_id],
    )
    rows(database, "insert into pgqueue.jobs (task, queue) values ('made', 'default')")
    move_to(database, clock, days=10)
    prune(pgq, operator)
    operator.execute("select pg_stat_force_next_flush()")
    changed = "select n_tup_upd + n_tup_del from pg_stat_user_tables where relname = %s"
    # What it did to the logs shows that the figures are there already.
    assert operator.execute(changed, ["job_logs"]).fetchone() == (1,)
    operator.execute("select pg_stat_clear_snapshot()")
    assert operator.execute(changed, ["jobs"]).fetchone() == (0,)


@pytest.mark.parametrize(
    "count", [20_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_day_goes_in_milliseconds_however_many_jobs_it_holds(
    pgq: PgQueue,
    database: str,
    clock: Clock,
    operator: psycopg.Connection[Any],
    count: int,
) -> None:
    finish(database, count)
    move_to(database, clock, days=10)
    plan = run(operator, plan_retention(pgq.sql))
    (day,) = (one for one in plan if one.partition == "finished_jobs_completed_20300101")
    run(operator, clean_day(pgq.sql, day))
    began = time.perf_counter()
    assert day.partition in prune_cleaned(pgq, operator)
    seconds = time.perf_counter() - began
    assert seconds < 1.0
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0


def prune_cleaned(pgq: PgQueue, connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """A pass that finds the log lines gone already."""
    sql = {**pgq.sql, "clean_logs": "select null::bigint, 0::bigint from (select %(after)s) as _"}
    return run(connection, apply_retention(sql, concurrently=True)).dropped

"""A schedule with a long past costs a tick no more than a young one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.run import Statement, Steps
from pgqueue.schedule.release import let_go, settle_windows
from pgqueue.schedule.tick import look_ahead, tick
from pgqueue.tasks.task import Task
from proving import Clock, rows

PAST = """
  insert into pgqueue.windows (schedule_id, window_start, window_end, job_id, outcome)
  select schedules.id, at, at + interval '1 minute', n, 'completed'
  from pgqueue.schedules,
    generate_series(1, 60000) as n,
    lateral (select timestamptz '2029-01-01 UTC' + n * interval '1 minute' as at) as minute
"""
MOST = 400
"""Pages that one statement may touch; the past alone has more than a thousand."""


@pytest.fixture
def aged(database: str, pgq: PgQueue, clock: Clock) -> Iterator[psycopg.Connection[Any]]:
    @pgq.task
    def fire() -> None: ...

    task: Task[None] = fire
    for overlap in ("queue", "skip", "cancel-running", "allow"):
        pgq.put_schedule(overlap, cron="* * * * *", task=task, overlap=overlap)
    pgq.put_schedule("follower", cron="* * * * *", task=task, after="allow")
    since = {"window_mode": "since-last-run"}
    pgq.put_schedule("since", cron="* * * * *", task=task, **since)
    rows(database, "select pgqueue.make_partitions()")
    rows(database, PAST)
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def test_no_statement_of_a_tick_walks_through_the_past(
    pgq: PgQueue, clock: Clock, aged: psycopg.Connection[Any]
) -> None:
    for _ in range(3):  # the first inserts, the others find windows that are open or held
        clock.set(clock.at + timedelta(minutes=1))
        for steps in (look_ahead(pgq.sql), tick(pgq.sql), let_go(pgq.sql), settle_windows(pgq.sql)):
            _explained(aged, steps)
    assert _pages(aged, "select id, problems from pgqueue.schedule_health") < 6 * MOST


def _explained(connection: psycopg.Connection[Any], steps: Steps[Any]) -> None:
    """Run the steps, each under EXPLAIN ANALYZE first, in a transaction that is undone."""
    asked = next(steps)
    while True:
        assert isinstance(asked, Statement)
        if re.match(r"\s*(begin|commit|rollback|savepoint|release)", asked.text) is None:
            _check(connection, asked)
        cursor = connection.execute(asked.text, asked.params)
        try:
            asked = steps.send(cursor.fetchall() if cursor.description else [])
        except StopIteration:
            return


def _check(connection: psycopg.Connection[Any], asked: Statement) -> None:
    with connection.transaction(force_rollback=True):
        plan = connection.execute(f"explain (analyze, buffers) {asked.text}", asked.params)
        lines = [line for (line,) in plan.fetchall()]
    pages = _touched(lines)
    assert pages < MOST, "\n".join([asked.text[:300], *lines])


def _pages(connection: psycopg.Connection[Any], query: str) -> int:
    plan = connection.execute(f"explain (analyze, buffers) {query}")  # type: ignore[arg-type]
    return _touched([line for (line,) in plan.fetchall()])


def _touched(lines: list[str]) -> int:
    found = re.search(r"shared hit=(\d+)", next(line for line in lines if "Buffers" in line))
    return int(found[1]) if found else 0


READ = """
  select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
  from pg_stat_xact_user_tables
  where schemaname = 'pgqueue' and relname = 'windows'
"""


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_to_catch_up_reads_as_much_for_each_window_however_long_the_past_is(
    database: str, pgq: PgQueue, clock: Clock, aged: psycopg.Connection[Any], plans: str
) -> None:
    rows(database, "analyze pgqueue.windows")
    for name in ("queue", "skip"):
        pgq.backfill(name, clock.at - timedelta(minutes=90), clock.at - timedelta(minutes=5))
    clock.set(clock.at + timedelta(minutes=100))
    aged.execute(f"set plan_cache_mode = {plans}")  # type: ignore[arg-type]
    aged.prepare_threshold = 0
    reads = 0
    steps = tick(pgq.sql)
    asked = next(steps)
    while True:
        assert isinstance(asked, Statement)
        if asked.text == "commit":
            reads += aged.execute(READ).fetchall()[0][0]
        cursor = aged.execute(asked.text, asked.params)
        try:
            asked = steps.send(cursor.fetchall() if cursor.description else [])
        except StopIteration as stop:
            windows = stop.value.windows
            break
    assert windows > 400
    assert reads < 100 * windows, (reads, windows)

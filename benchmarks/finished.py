"""Measure claims and endings beside 1,000,000 finished jobs against the same beside none.

Run: python benchmarks/finished.py [JOBS]   (default: 1000000, on a private server of its own)
Two databases on one server, one with finished jobs of ten days, one without. In each of 20 rounds
5,000 jobs in both are claimed and ended 100 at a time, in turns: A B, B A, A B, … A round's ratio
is that of its two medians. Then retention drops all days but yesterday and today.
"""

# ruff: noqa: T201 - a script whose output is its report
from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgqueue import embedded
from pgqueue.db import upgrade
from pgqueue.db.run import Batch, Steps, run
from pgqueue.engine.claim import Lane, claim_jobs, claimed_of_rows, new_lease
from pgqueue.engine.enqueue import enqueue_jobs
from pgqueue.engine.finish import outcome_statements
from pgqueue.engine.rescue import register_worker
from pgqueue.engine.retention import apply_retention
from pgqueue.job import Ended, NewJob, State
from pgqueue.settings import normalised_url, read_settings
from pgqueue.sql import load

SQL = load("pgqueue.sql", "pgqueue")
ROUNDS = 20
JOBS, BATCH = 5_000, 100
DAYS = 10

FILL = """
insert into pgqueue.finished_jobs (
  id, task, queue, priority, state, payload, tags, limits, run_at, scheduled_at, attempt,
  max_attempts, lease, worker_id, started_at, created_at, errors, headers, result, finished_at
)
select
  -n, 'work', 'default', 5, 'completed', jsonb_build_object('n', n), '{}', '{}', at, at, 1, 1, n, 1,
  at, at, '[]', '{}', 'null', at
from (
  select n, now() - (n %% %(days)s) * interval '1 day' as at
  from generate_series(1, %(jobs)s) as n
) as ended
"""
PARTITIONS = "select pgqueue.make_partitions()"
YESTERDAY = (
    "create or replace function pgqueue.clock_now() returns timestamptz language sql volatile as "
    "$$select clock_timestamp() - interval '{days} days'$$"
)
CHANGES = """
select n_tup_upd + n_tup_del, n_dead_tup
from pg_stat_user_tables
where schemaname = 'pgqueue' and relname = 'jobs'
"""


@dataclass
class Side:
    """A database, and the milliseconds of its claims and endings of 100 jobs in this round."""

    connection: psycopg.Connection[Any]
    worker_id: int = 0
    claims: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


def main(finished: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pgqbench-", dir="/tmp"))
    try:
        with embedded.start(folder) as server:
            _compare(server.url, finished)
    finally:
        shutil.rmtree(folder)


def _compare(url: str, finished: int) -> None:
    with closing(_database(url, "beside_none")) as none, closing(_database(url, "beside")) as many:
        _fill(many, finished)
        claims, ends = [], []
        for _ in range(ROUNDS):
            sides = Side(none), Side(many)
            _round(sides)
            claims.append([statistics.median(side.claims) for side in sides])
            ends.append([statistics.median(side.ends) for side in sides])
        _report("claim of 100", claims, finished)
        _report("ending of 100", ends, finished)
        _prune(many)


def _database(url: str, name: str) -> psycopg.Connection[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    own = make_conninfo(url, dbname=name)
    upgrade.move(read_settings(database_url=own), normalised_url(own))
    return psycopg.connect(own, autocommit=True)


def _fill(connection: psycopg.Connection[Any], finished: int) -> None:
    began = time.perf_counter()
    definition = connection.execute(
        "select pg_get_functiondef('pgqueue.clock_now'::regproc)"
    ).fetchall()
    # make_partitions begins with yesterday.
    connection.execute(YESTERDAY.format(days=DAYS - 1).encode())
    connection.execute(PARTITIONS)
    connection.execute(definition[0][0])
    connection.execute(PARTITIONS)
    connection.execute(FILL, {"jobs": finished, "days": DAYS})
    connection.execute("vacuum analyze")
    count = connection.execute("select count(*) from pgqueue.finished_jobs").fetchall()[0][0]
    print(f"{count:,} finished jobs in {time.perf_counter() - began:.0f} s")


def _round(sides: Sequence[Side]) -> None:
    for side in sides:
        registered = register_worker(
            SQL, host="h", pid=1, version="", queues=(), concurrency=BATCH, tasks=("work",)
        )
        side.worker_id = run(side.connection, registered)
        run(side.connection, enqueue_jobs(SQL, [NewJob("work", "default", {"n": 1})] * JOBS))
        side.connection.execute("vacuum analyze pgqueue.jobs")
    for turn in range(JOBS // BATCH):
        for side in sides if turn % 2 == 0 else reversed(sides):
            _claim_and_end(side)


def _claim_and_end(side: Side) -> None:
    lease = new_lease()
    lanes = [Lane("default", 5)]
    claim = claim_jobs(SQL, lanes, ["work"], worker_id=side.worker_id, lease=lease, limit=BATCH)
    (rows,), took = _timed(side.connection, Batch((claim,)))
    claimed = claimed_of_rows(lease, rows).jobs
    assert len(claimed) == BATCH  # noqa: S101 - else it measures something else
    side.claims.append(took)
    ended = [Ended(job.id, lease, State.COMPLETED, "null") for job in claimed]
    side.ends.append(_timed(side.connection, Batch(tuple(outcome_statements(SQL, ended))))[1])


def _timed(connection: psycopg.Connection[Any], batch: Batch) -> tuple[Any, float]:
    began = time.perf_counter()
    replies = run(connection, _one(batch))
    return replies, 1e3 * (time.perf_counter() - began)


def _one(batch: Batch) -> Steps[Any]:
    return (yield batch)


def _report(what: str, pairs: Sequence[Sequence[float]], finished: int) -> None:
    ratios = sorted(many / none for none, many in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    none = statistics.median(none for none, _ in pairs)
    many = statistics.median(many for _, many in pairs)
    print(
        f"{what}: {none:.2f} ms beside none, {many:.2f} ms beside {finished:,}; ratio of "
        f"{len(ratios)} rounds {middle:.2f} (quartiles {low:.2f} to {high:.2f}, "
        f"all {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def _prune(connection: psycopg.Connection[Any]) -> None:
    # Today and yesterday stay whatever it says.
    connection.execute("update pgqueue.retention set keep = '1 hour'")
    connection.execute("vacuum pgqueue.jobs")
    changed, dead = _changes_of_jobs(connection)
    began = time.perf_counter()
    pruned = run(connection, apply_retention(SQL, concurrently=True))
    took = 1e3 * (time.perf_counter() - began)
    changed_now, dead_now = _changes_of_jobs(connection)
    ((left,),) = connection.execute("select count(*) from pgqueue.finished_jobs").fetchall()
    print(
        f"retention: {len(pruned.dropped)} partitions in {took:.0f} ms, "
        f"{took / max(1, len(pruned.dropped)):.1f} ms each, {len(pruned.postponed)} postponed, "
        f"{left:,} finished jobs left; in jobs it changed {changed_now - changed} rows and left "
        f"{dead_now - dead} dead"
    )


def _changes_of_jobs(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    connection.execute("select pg_stat_force_next_flush()")
    ((changed, dead),) = connection.execute(CHANGES).fetchall()
    return changed, dead


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

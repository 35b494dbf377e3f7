"""How jobs end: by their lease alone, in batches that do not block each other."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import Batch, Rows, Steps, run
from pgqueue.engine.finish import Written, outcome_statements, parted, written_of_rows
from pgqueue.job import Ended, Outcome, Requeued, State
from proving import Clock, rows, value

LEASE = 7


@pytest.fixture
def held(database: str) -> list[int]:
    """Ten jobs running under LEASE."""
    found = rows(
        database,
        "insert into pgqueue.jobs (task, queue, state, lease, worker_id, started_at, attempt, "
        "max_attempts) select 'noop', 'default', 'running', %s, 1, now(), 1, 3 "
        "from generate_series(1, 10) returning id",
        [LEASE],
    )
    return [job_id for (job_id,) in found]


def _write(connection: psycopg.Connection[Any], pgq: PgQueue, outcomes: list[Outcome]) -> Written:
    def steps() -> Steps[list[Rows]]:
        replies: list[Rows] = yield Batch(tuple(outcome_statements(pgq.sql, outcomes)))
        return replies

    return written_of_rows(outcomes, run(connection, steps()))


def write(pgq: PgQueue, outcomes: list[Outcome]) -> Written:
    with pgq.connection() as connection:
        return _write(connection, pgq, outcomes)


def _done(job_id: int, lease: int = LEASE) -> Ended:
    return Ended(job_id, lease, State.COMPLETED, "1")


def test_what_was_to_be_cancelled_waits_for_no_retry(
    database: str, pgq: PgQueue, held: list[int], clock: Clock
) -> None:
    pgq.cancel(held[0])
    write(pgq, [Requeued(job_id, LEASE, delay=900.0) for job_id in held[:2]])
    due = rows(
        database,
        "select extract(epoch from run_at - pgqueue.clock()) from pgqueue.jobs "
        "where state = 'queued' order by id",
    )
    assert due == [(0,), (900,)]


def test_waits_in_whole_seconds_and_in_parts_of_them_are_written_together(
    database: str, pgq: PgQueue, held: list[int], clock: Clock
) -> None:
    waits = [60, 1.5, True, 1e9]
    write(pgq, [Requeued(held[n], LEASE, delay=wait) for n, wait in enumerate(waits)])
    due = (
        "select extract(epoch from run_at - pgqueue.clock())::float8 from pgqueue.jobs order by id"
    )
    assert rows(database, due)[:4] == [(60,), (1.5,), (1,), (1e9,)]


def test_endings_move_jobs_and_requeues_keep_them(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    outcomes: list[Outcome] = [
        _done(held[0]),
        Ended(held[1], LEASE, State.FAILED, error='{"reason": "x"}'),
        Ended(held[2], LEASE, State.CANCELLED),
        Requeued(held[3], LEASE, uncounted=1),
        Requeued(held[4], LEASE, error='{"reason": "y"}'),
    ]
    written = write(pgq, outcomes)
    assert (written.applied, written.lost) == (frozenset(held[:5]), ())
    found = rows(
        database,
        "select id, state, attempt, errors #>> '{0,reason}' from pgqueue.all_jobs "
        "where id <= %s order by id",
        [held[4]],
    )
    assert found == [
        (held[0], "completed", 1, None),
        (held[1], "failed", 1, "x"),
        (held[2], "cancelled", 1, None),
        (held[3], "queued", 0, None),
        (held[4], "queued", 1, "y"),
    ]


@pytest.mark.parametrize("kind", ["ended", "requeued"])
def test_a_stale_lease_changes_nothing_and_is_told(
    database: str, pgq: PgQueue, held: list[int], kind: str
) -> None:
    before = rows(database, "select * from pgqueue.jobs order by id")
    stale: Outcome = _done(held[0], LEASE + 1)
    if kind == "requeued":
        stale = Requeued(held[0], LEASE + 1, 5.0, error="{}")
    written = write(pgq, [stale])
    assert (written.applied, written.lost) == (frozenset(), (stale,))
    assert rows(database, "select * from pgqueue.jobs order by id") == before
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0


def test_a_second_ending_of_the_same_try_changes_nothing(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    write(pgq, [_done(held[0])])
    assert write(pgq, [_done(held[0])]).applied == frozenset()
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 1


def test_the_errors_of_a_job_keep_the_last_twenty(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    for number in range(25):
        write(pgq, [Requeued(held[0], LEASE, error=f'{{"number": {number}}}')])
        rows(
            database,
            "update pgqueue.jobs set state = 'running', lease = %s, worker_id = 1 where id = %s",
            [LEASE, held[0]],
        )
    write(pgq, [Ended(held[0], LEASE, State.FAILED, error='{"number": 25}')])
    errors = value(database, "select errors from pgqueue.finished_jobs")
    assert [error["number"] for error in errors] == list(range(6, 26))
    assert all("at" in error for error in errors)


def test_batches_in_opposite_order_neither_wait_for_each_other_nor_deadlock(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    mine: list[Outcome] = [Requeued(job_id, LEASE) for job_id in reversed(held[3:7])]
    theirs: list[Outcome] = [_done(job_id) for job_id in held]
    with connect(database) as one, connect(database) as two:
        one.execute("begin")
        for statement in outcome_statements(pgq.sql, mine):
            one.execute(statement.text, statement.params)
        two.execute("set lock_timeout = '1ms'")
        written = _write(two, pgq, theirs)
        assert written.applied == {*held[:3], *held[7:]}
        parts = run(two, parted(pgq.sql, written))
        assert [outcome.job_id for outcome in parts.held] == held[3:7]
        assert parts.lost == ()
        one.execute("commit")
        again = run(two, parted(pgq.sql, _write(two, pgq, list(parts.held))))
    assert again.applied == frozenset()
    assert [outcome.job_id for outcome in again.lost] == held[3:7]


def _drop_partitions(database: str, day: str = "") -> None:
    for (name,) in rows(
        database,
        "select oid::regclass::text from pg_class "
        "where relispartition and relkind = 'r' and relname like 'finished_jobs_%%' || %s",
        [day or "%"],
    ):
        rows(database, f"drop table {name}")


def test_without_a_partition_nothing_ends_and_making_them_heals_it(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    _drop_partitions(database)
    with pytest.raises(errors.CheckViolation):
        write(pgq, [_done(held[0])])
    assert value(database, "select pgqueue.make_partitions()") == 32
    assert write(pgq, [_done(held[0])]).applied == {held[0]}
    assert value(database, "select pgqueue.make_partitions()") == 0


def test_partitions_are_made_while_a_reader_holds_the_table_and_finishes_do_not_wait(
    database: str, pgq: PgQueue, held: list[int]
) -> None:
    _drop_partitions(
        database, value(database, "select to_char(now() + interval '9 days', 'YYYYMMDD')")
    )
    with psycopg.connect(database) as reader, connect(database) as maker, connect(database) as one:
        reader.execute("select * from pgqueue.finished_jobs").fetchall()
        maker.execute("begin")
        assert maker.execute("select pgqueue.make_partitions()").fetchall() == [(2,)]
        # The DDL is not committed yet, the reader still reads: an ending goes through.
        one.execute("set lock_timeout = '2s'")
        assert _write(one, pgq, [_done(held[0])]).applied == {held[0]}
        maker.execute("commit")
        assert reader.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


def test_retry_delays_are_exact_by_the_database_s_clock(
    database: str, pgq: PgQueue, held: list[int], clock: Clock
) -> None:
    write(pgq, [Requeued(held[0], LEASE, 12.5)])
    wait = "select extract(epoch from run_at - pgqueue.clock_now())::float8 from pgqueue.jobs"
    assert value(database, wait + " where id = %s", [held[0]]) == 12.5

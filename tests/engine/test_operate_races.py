"""Operators who act at the same time, and retention that drops what they want."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from endings import end
from pgqueue import JobFilter, Operator, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.retention import apply_retention
from pgqueue.engine.retry_jobs import Retried, Revival, _params
from pgqueue.tasks.task import Task
from proving import Clock, blocked_on, rows, states, until, value

EVA = Operator("eva")


@pytest.fixture
def add(pgq: PgQueue) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int) -> int:
        return a

    return add


@pytest.fixture
def two(pgq: PgQueue, database: str) -> Iterator[tuple[PgQueue, PgQueue]]:
    other = PgQueue(database)
    yield pgq, other
    other.close()


def half_done_retry(pgq: PgQueue, connection: psycopg.Connection, *job_ids: int) -> None:  # type: ignore[type-arg]
    """The retry's one statement, inside the connection's open transaction."""
    keys = connection.execute(
        "select id, finished_at from pgqueue.finished_jobs where id = any(%s)", [list(job_ids)]
    ).fetchall()
    params = _params([(row[0], row[1]) for row in keys], Revival(EVA, {}))
    connection.execute(pgq.sql["retry_jobs"], params)


def test_two_operators_who_retry_the_same_batch_retry_each_job_once(
    two: tuple[PgQueue, PgQueue], database: str, add: Task[int]
) -> None:
    ids = add.enqueue_many({"a": n} for n in range(1500))
    end(database, *ids)

    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda pgq: pgq.retry_many(JobFilter(task="add")), two))

    retried = Counter(job_id for one in done for job_id in one.retried)
    assert sorted(retried) == ids
    assert set(retried.values()) == {1}
    assert states(database) == {"queued": 1500}
    logged = "select jsonb_array_elements(details -> 'ids')::bigint from pgqueue.audit_log"
    assert sorted(row[0] for row in rows(database, logged)) == ids


def test_a_job_in_another_operators_hands_is_skipped_and_told(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    mine, free = add.enqueue_many([{"a": 1}, {"a": 2}])
    end(database, mine, free)
    with psycopg.connect(database) as other:
        half_done_retry(pgq, other, mine)
        done = pgq.retry(mine, free)
        assert done == Retried(
            retried=(free,), refused={mine: "another session holds it: try again"}
        )
        other.commit()

    assert pgq.retry(mine) == Retried(live=(mine,))


def test_a_retry_that_rolls_back_leaves_no_trace(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue(a=1)
    end(database, job.id)
    with psycopg.connect(database) as other:
        half_done_retry(pgq, other, job.id)
        other.rollback()

    assert states(database) == {"failed": 1}
    assert value(database, "select count(*) from pgqueue.audit_log") == 0


def test_an_enqueue_and_a_retry_of_one_unique_key_leave_one_live_job(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    old = add.using(unique_key="k").enqueue(a=1)
    end(database, old.id)
    with psycopg.connect(database) as stranger, ThreadPoolExecutor(1) as threads:
        new = add.using(unique_key="k", connection=stranger).enqueue(a=2)
        retrying = threads.submit(pgq.retry, old.id)
        until(lambda: blocked_on(database, stranger.info.backend_pid))
        stranger.commit()
        done = retrying.result()

    assert done.retried == ()
    assert old.id in done.refused
    assert rows(database, "select id from pgqueue.jobs") == [(new.id,)]
    assert pgq.get_job(old.id).state == "failed"


def test_retention_waits_for_a_retry_and_takes_what_is_left(
    pgq: PgQueue, database: str, add: Task[int], clock: Clock
) -> None:
    rows(database, "select pgqueue.make_partitions()")
    wanted, left = add.enqueue_many([{"a": 1}, {"a": 2}])
    end(database, wanted, left)
    clock.move(days=40)
    rows(database, "select pgqueue.make_partitions()")
    with connect(database) as chore, psycopg.connect(database) as operator:
        half_done_retry(pgq, operator, wanted)
        pruned = run(chore, apply_retention(pgq.sql, concurrently=True))
        assert "finished_jobs_failed_20300101" in pruned.postponed
        operator.commit()
        pruned = run(chore, apply_retention(pgq.sql, concurrently=True))
        assert "finished_jobs_failed_20300101" in pruned.dropped

    assert pgq.retry(wanted, left) == Retried(live=(wanted,), missing=(left,))
    assert pgq.retry_many(JobFilter()) == Retried()
    assert states(database) == {"queued": 1}


def test_a_day_dropped_between_looking_and_retrying_is_missing_and_no_error(
    pgq: PgQueue, database: str, add: Task[int], clock: Clock
) -> None:
    rows(database, "select pgqueue.make_partitions()")
    gone, stays = add.enqueue_many([{"a": 1}, {"a": 2}])
    end(database, gone)
    clock.move(days=40)
    rows(database, "select pgqueue.make_partitions()")
    end(database, stays)
    with connect(database) as connection:
        steps = pgq._retry((gone, stays), EVA, from_start=False)
        looked = next(steps)
        answer = connection.execute(looked.text, looked.params).fetchall()  # type: ignore[union-attr]
        run(connection, apply_retention(pgq.sql, concurrently=True))

        def rest():  # type: ignore[no-untyped-def]
            asked = steps.send(answer)
            while True:
                try:
                    reply = yield asked
                    asked = steps.send(reply)
                except StopIteration as stop:
                    return stop.value

        assert run(connection, rest()) == Retried(retried=(stays,), missing=(gone,))

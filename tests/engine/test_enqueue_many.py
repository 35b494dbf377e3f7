"""Many jobs at once, unique keys and races for them."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgqueue import PgQueue
from pgqueue.db.run import run
from pgqueue.engine.enqueue import enqueue_jobs
from pgqueue.job import NewJob
from pgqueue.tasks.task import Task
from proving import blocked_on, rows, until, value


@pytest.fixture
def count(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def count(number: int) -> None: ...

    return count


def test_the_ids_stand_in_the_order_of_the_rows(database: str, count: Task[None]) -> None:
    ids = count.enqueue_many({"number": number} for number in range(1000))

    assert ids == sorted(ids)
    stored = dict(rows(database, "select id, (payload ->> 'number')::int from pgqueue.jobs"))
    assert [stored[job_id] for job_id in ids] == list(range(1000))


def test_no_rows_insert_nothing(database: str, count: Task[None]) -> None:
    assert count.enqueue_many([]) == []
    assert value(database, "select count(*) from pgqueue.jobs") == 0


def test_one_bad_row_among_many_inserts_nothing(database: str, count: Task[None]) -> None:
    with pytest.raises(ValueError, match="number"):
        count.enqueue_many([{"number": 1}, {"number": "many"}])
    assert value(database, "select count(*) from pgqueue.jobs") == 0


KEYS = st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), max_size=12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(live=st.sets(st.sampled_from("abcdef")), keys=KEYS)
def test_repeated_and_live_keys_give_the_id_of_the_one_job(
    pgq: PgQueue, live: set[str], keys: list[str | None]
) -> None:
    with pgq.connection() as connection:
        connection.execute("truncate pgqueue.jobs")
        holder = {key: run(connection, _insert(pgq, [key]))[0] for key in sorted(live)}

        ids = run(connection, _insert(pgq, keys))

        found = connection.execute("select id, unique_key from pgqueue.jobs").fetchall()
    assert [dict(found)[job_id] for job_id in ids] == keys
    keyed = [key for _, key in found if key is not None]
    assert len(keyed) == len(set(keyed)) == len(live | {key for key in keys if key})
    assert all(dict(zip(keys, ids, strict=True))[key] == holder[key] for key in live & set(keys))
    assert sum(1 for _, key in found if key is None) == keys.count(None)


def _insert(pgq: PgQueue, keys: list[str | None]):  # type: ignore[no-untyped-def]
    return enqueue_jobs(pgq.sql, [NewJob("count", "default", {}, unique_key=key) for key in keys])


def test_sixteen_enqueuers_of_one_key_make_one_job(database: str, count: Task[None]) -> None:
    barrier = threading.Barrier(16)

    def enqueue(_: int) -> int:
        with psycopg.connect(database, autocommit=True) as connection:
            barrier.wait(10)
            return count.using(unique_key="one", connection=connection).enqueue(number=1).id

    for _ in range(3):
        with ThreadPoolExecutor(16) as threads:
            ids = set(threads.map(enqueue, range(16)))
        assert len(ids) == 1
    assert value(database, "select count(*) from pgqueue.jobs") == 1


def test_a_second_enqueuer_waits_for_the_first_and_gets_its_job(
    database: str, count: Task[None]
) -> None:
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        job = count.using(unique_key="one", connection=first).enqueue(number=1)
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(
                count.using(unique_key="one", connection=second).enqueue, number=2
            )
            until(lambda: blocked_on(database, first.info.backend_pid))
            first.commit()
            assert other.result(10).id == job.id
        second.commit()


def test_a_second_enqueuer_inserts_when_the_first_rolls_back(
    database: str, count: Task[None]
) -> None:
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        job = count.using(unique_key="one", connection=first).enqueue(number=1)
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(
                count.using(unique_key="one", connection=second).enqueue, number=2
            )
            until(lambda: blocked_on(database, first.info.backend_pid))
            first.rollback()
            assert other.result(10).id != job.id
        second.commit()
    assert rows(database, "select payload from pgqueue.jobs") == [({"number": 2},)]


def test_batches_with_the_same_keys_in_opposite_order_do_not_deadlock(
    database: str, pgq: PgQueue
) -> None:
    keys = [f"k{number:03}" for number in range(200)]
    barrier = threading.Barrier(4)

    def enqueue(turn: int) -> list[int]:
        mine = keys if turn % 2 else keys[::-1]
        with psycopg.connect(database) as connection:
            barrier.wait(10)
            return run(connection, _insert(pgq, mine))

    for _ in range(5):
        rows(database, "truncate pgqueue.jobs")
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(enqueue, range(4)))
        assert Counter(tuple(sorted(ids)) for ids in answers) == {tuple(sorted(answers[0])): 4}
    assert value(database, "select count(*) from pgqueue.jobs") == 200


def test_a_finished_job_frees_its_key(database: str, count: Task[None]) -> None:
    first = count.using(unique_key="one").enqueue(number=1)
    rows(database, "delete from pgqueue.jobs")
    assert count.using(unique_key="one").enqueue(number=2).id != first.id

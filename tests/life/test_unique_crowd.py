"""Sixteen enqueuers with a connection each want the same thousand keys at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgqueue.db.run import run
from pgqueue.engine.enqueue import enqueue_job
from pgqueue.engine.finish import outcome_statements
from pgqueue.errors import UniqueKeyTaken
from pgqueue.job import Ended, NewJob, State
from pgqueue.sql import load
from proving import Clock, rows, value

CROWD = 16
PERIOD = 3600.0
SQL = load("pgqueue.sql", "pgqueue")
MODES = ("skip", "replace", "raise")
many_keys = pytest.mark.parametrize("keys", [50, pytest.param(1_000, marks=pytest.mark.slow)])


def crowd(database: str, work: Callable[[psycopg.Connection[Any], int], object]) -> None:
    """Calls `work(connection, number)` in 16 threads that start together."""
    together = threading.Barrier(CROWD)
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            with psycopg.connect(database, autocommit=True) as connection:
                together.wait(20)
                work(connection, number)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def enqueue_all(
    keys: int, mode: str, period: float | None, told: Counter[str]
) -> Callable[..., None]:
    def work(connection: psycopg.Connection[Any], number: int) -> None:
        for key in range(keys):
            # Each from another place on, so that neighbours meet on different keys all the time.
            name = f"key {(key + number * 7) % keys}"
            new = NewJob(
                "t", "q", {"by": number}, unique_key=name, unique_mode=mode, unique_for=period
            )
            try:
                run(connection, enqueue_job(SQL, new))
            except UniqueKeyTaken:
                told["taken"] += 1

    return work


@many_keys
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("period", [None, PERIOD], ids=["live", "period"])
def test_a_thousand_keys_make_a_thousand_jobs(
    database: str, keys: int, mode: str, period: float | None
) -> None:
    told: Counter[str] = Counter()
    crowd(database, enqueue_all(keys, mode, period, told))
    assert value(database, "select count(*) from pgqueue.jobs") == keys
    assert value(database, "select count(distinct unique_key) from pgqueue.jobs") == keys
    assert told["taken"] == (keys * (CROWD - 1) if mode == "raise" else 0)


@many_keys
@pytest.mark.parametrize("mode", MODES)
def test_a_period_holds_beyond_the_end_and_not_beyond_itself(
    database: str, clock: Clock, keys: int, mode: str
) -> None:
    crowd(database, enqueue_all(keys, mode, PERIOD, Counter()))
    finish_everything(database)
    crowd(database, enqueue_all(keys, mode, PERIOD, Counter()))
    assert value(database, "select count(*) from pgqueue.all_jobs") == keys
    clock.move(seconds=PERIOD + 1)
    crowd(database, enqueue_all(keys, mode, PERIOD, Counter()))
    assert value(database, "select count(*) from pgqueue.all_jobs") == 2 * keys
    assert value(database, "select count(*) from pgqueue.jobs") == keys


@many_keys
@pytest.mark.parametrize("mode", MODES)
def test_keys_stay_exact_while_workers_finish_them(database: str, keys: int, mode: str) -> None:
    """Half of the crowd enqueues, the other half ends whatever is there."""
    enqueue = enqueue_all(keys, mode, PERIOD, Counter())
    done = threading.Event()
    enqueuing = [CROWD // 2]
    lock = threading.Lock()

    def work(connection: psycopg.Connection[Any], number: int) -> None:
        if number % 2:
            while not done.is_set():
                finish_some(connection)
            return
        try:
            enqueue(connection, number)
        finally:
            with lock:
                enqueuing[0] -= 1
                if not enqueuing[0]:
                    done.set()

    crowd(database, work)
    finish_everything(database)
    assert value(database, "select count(*) from pgqueue.finished_jobs") == keys
    assert (
        rows(
            database, "select unique_key from pgqueue.finished_jobs group by 1 having count(*) > 1"
        )
        == []
    )


CLAIM = """
update pgqueue.jobs
set state = 'running', lease = 7, worker_id = %s, started_at = now(), attempt = 1
where id = any(array(
  select id from pgqueue.jobs where state = 'queued' limit 50 for update skip locked
))
returning id
"""


def finish_some(connection: psycopg.Connection[Any]) -> int:

    with connection.transaction():
        pid = connection.info.backend_pid
        ids = [job_id for (job_id,) in connection.execute(CLAIM, [pid])]
        for statement in outcome_statements(SQL, [Ended(i, 7, State.COMPLETED) for i in ids]):
            connection.execute(statement.text, statement.params)
    return len(ids)


def finish_everything(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("select pgqueue.make_partitions()")
        while finish_some(connection):
            pass

"""Waits of jobs that have ended: nobody looks at them any more, and a retry waits anew."""

from __future__ import annotations

import threading

import psycopg
import pytest

from pgqueue import Job, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.steps import StepBook
from pgqueue.engine.sweep import sweep
from pgqueue.tasks.task import Task
from proving import blocked_on, rows, until, value

HAS_WAITERS = "select has_waiters from pgqueue.deliver_events()"
OPEN = "select job_id from pgqueue.job_steps where kind = 'wait' and finished_at is null"


@pytest.fixture
def pay(pgq: PgQueue, database: str) -> Task[None]:
    rows(database, "select pgqueue.make_partitions()")

    @pgq.task
    def pay(job: Job) -> None: ...

    return pay


def _parked(pgq: PgQueue, database: str, pay: Task[None]) -> int:
    """A job that waits for an event, as its worker leaves it."""
    job_id = pay.enqueue().id
    _opened(pgq, database, job_id)
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null, "
        "started_at = null, run_at = pgqueue.clock() + interval '1 day' where id = %s",
        [job_id],
    )
    return job_id


def _opened(pgq: PgQueue, database: str, job_id: int) -> None:
    """Claim a job and let its handler come to its wait."""
    rows(
        database,
        "update pgqueue.jobs set state = 'running', lease = 7, worker_id = 1, "
        "started_at = pgqueue.clock(), attempt = attempt + 1 where id = %s",
        [job_id],
    )
    with connect(database) as connection:
        run(connection, StepBook(pgq.sql).wait(job_id, 7, "paid", "paid", "1", 60.0))


def _swept(pgq: PgQueue, database: str) -> int:
    with connect(database) as connection:
        return run(connection, sweep(pgq.sql))


def test_the_wait_of_a_cancelled_job_is_looked_at_no_more(
    pgq: PgQueue, database: str, pay: Task[None]
) -> None:
    ended, live = _parked(pgq, database, pay), _parked(pgq, database, pay)
    assert _swept(pgq, database) == 0
    pgq.cancel(ended)
    assert _swept(pgq, database) == 1
    assert rows(database, OPEN) == [(live,)]
    assert value(database, HAS_WAITERS)
    pgq.cancel(live)
    assert _swept(pgq, database) == 1
    assert not value(database, HAS_WAITERS)


def test_a_wait_that_is_over_stays_with_its_job(
    pgq: PgQueue, database: str, pay: Task[None]
) -> None:
    job_id = _parked(pgq, database, pay)
    pgq.emit("paid", "1", {"amount": 12})
    assert rows(database, HAS_WAITERS) == [(False,)]
    pgq.cancel(job_id)
    assert _swept(pgq, database) == 0
    assert value(database, "select result from pgqueue.job_steps") == {"amount": 12}


def test_a_cancelled_job_that_is_retried_gets_what_came_meanwhile(
    pgq: PgQueue, database: str, pay: Task[None]
) -> None:
    job_id = _parked(pgq, database, pay)
    pgq.cancel(job_id)
    _swept(pgq, database)
    pgq.emit("paid", "1", {"amount": 12})
    rows(database, HAS_WAITERS)
    pgq.retry(job_id)
    _opened(pgq, database, job_id)
    assert value(database, "select result from pgqueue.job_steps") == {"amount": 12}


def test_a_wait_that_a_retried_job_opens_at_this_moment_is_left_alone(
    pgq: PgQueue, database: str, pay: Task[None]
) -> None:
    job_id = _parked(pgq, database, pay)
    pgq.cancel(job_id)
    with psycopg.connect(database) as opening:
        # Locks the wait and not yet committed, as open_wait of the retried job.
        opening.execute("update pgqueue.job_steps set name = name")
        sweeping = threading.Thread(target=_swept, args=(pgq, database))
        sweeping.start()
        until(lambda: blocked_on(database, opening.info.backend_pid) or not sweeping.is_alive())
        pgq.retry(job_id)
        opening.commit()
    sweeping.join()
    assert rows(database, OPEN) == [(job_id,)]

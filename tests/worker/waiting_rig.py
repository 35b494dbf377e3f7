"""What the tests of sleeping and waiting share: a worker at work, and promises that come true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from endings import run_on
from pgqueue import Job, PgQueue
from pgqueue.db.run import run
from pgqueue.engine.finish import outcome_statements
from pgqueue.engine.steps import StepBook
from pgqueue.job import Requeued
from proving import rows, until, value

WAITING = "select count(*) from pgqueue.job_steps where kind = 'wait' and finished_at is null"
PARKED = (
    "select count(*) from pgqueue.job_steps join pgqueue.jobs on jobs.id = job_id "
    "where kind = 'wait' and finished_at is null and state = 'queued'"
)
STATE = "select state, run_at > pgqueue.clock(), attempt from pgqueue.jobs where id = %s"


@asynccontextmanager
async def working(pgq: PgQueue, **options: Any) -> AsyncIterator[None]:
    """While a worker works."""
    worker = pgq.worker(scheduler=False, **options)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop("the test is over")
        await asyncio.wait_for(running, 30)


async def come_true(promise: Any) -> Any:
    return await asyncio.to_thread(until, promise)


async def result_of(job: Job) -> Any:
    return await job.aresult(timeout=20)


async def waits(database: str, count: int = 1) -> None:
    """Until so many waits are open and their jobs are put back."""
    await come_true(lambda: value(database, PARKED) == count)


def run_alone(database: str) -> tuple[int, bool, bool]:
    """One delivery, as a worker does it."""
    query = "select woken, has_more, has_waiters from pgqueue.deliver_events()"
    ((woken, has_more, has_waiters),) = rows(database, query)
    return woken, has_more, has_waiters


class Hands:
    """A job that runs in the test's hands, with lease 5, and waits for `paid`, '7'."""

    def __init__(self, database: str, pgq: PgQueue) -> None:
        self.pgq = pgq
        self.url = database
        self.job = pgq.task(name="held")(lambda: None).enqueue()
        self.book = StepBook(pgq.sql)
        self.start()

    def start(self) -> None:
        run_on(self.url, self.job.id, 1)

    def wait(self, connection: Any = None, timeout: float | None = None) -> Any:
        steps = self.book.wait(self.job.id, 5, "paid:7", "paid", "7", timeout)
        if connection is not None:
            return run(connection, steps)
        with psycopg.connect(self.url, autocommit=True) as own:
            return run(own, steps)

    def put_back(self, connection: psycopg.Connection[Any]) -> None:
        """As the writer does it, in a transaction that stays open."""
        outcome = Requeued(self.job.id, 5, 3600.0, uncounted=1, waits=("paid:7",))
        for statement in outcome_statements(self.pgq.sql, [outcome]):
            connection.execute(statement.text, statement.params)

    @property
    def is_due(self) -> bool:
        query = "select state = 'queued' and run_at <= clock_timestamp() from pgqueue.jobs"
        return bool(value(self.url, query))

"""Handlers that write down what happens to them, for the history checker.

`history` is written through autocommit connections: it tells what handlers did, whatever became of
it. `effects` is written by transactional handlers: it may only hold what counted.
"""

# ruff: noqa: S311 - chance, not secrets
from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import psycopg

from pgqueue import Job, PgQueue, Retry, Snooze, events
from pgqueue.events import Event, LeasesLost

TABLES = """
create table history (
  job_id bigint not null, lease bigint not null, pid int not null, what text not null,
  at timestamptz not null default clock_timestamp()
);
create table effects (job_id bigint not null, lease bigint not null);
create table stages (job_id bigint not null, lease bigint not null);
"""
AGAIN = Retry(attempts=4, delays=[0.1, 0.3])
NOTE = "insert into history (job_id, lease, pid, what) values (%s, %s, %s, %s)"

pgq = PgQueue(os.environ.get("PGQUEUE_DATABASE_URL", "dbname=nobody-asked-yet"))


def note(job_id: int, lease: int | None, what: str) -> None:
    # The connection may have been cut: what a handler did is to be known all the same.
    for _ in range(50):
        try:
            with psycopg.connect(pgq.conninfo(), autocommit=True) as connection:
                connection.execute(NOTE, [job_id, lease or 0, os.getpid(), what])
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("could not write history")


@pgq.task(retry=AGAIN)
async def succeed(job: Job) -> int:
    await asyncio.to_thread(note, job.id, job.lease, "start")
    await asyncio.sleep(random.uniform(0, 0.3))
    await asyncio.to_thread(note, job.id, job.lease, "end")
    return job.lease or 0


@pgq.task(retry=AGAIN)
def fail_often(job: Job) -> None:
    note(job.id, job.lease, "start")
    if random.random() < 0.6:
        raise ValueError("as often")
    note(job.id, job.lease, "end")


@pgq.task(retry=AGAIN)
async def snooze_often(job: Job) -> None:
    await asyncio.to_thread(note, job.id, job.lease, "start")
    if random.random() < 0.5:
        raise Snooze(0.2)
    await asyncio.to_thread(note, job.id, job.lease, "end")


@pgq.task(retry=AGAIN, timeout=0.4)
async def time_out_often(job: Job) -> None:
    await asyncio.to_thread(note, job.id, job.lease, "start")
    await asyncio.sleep(random.choice((0.0, 5.0)))
    await asyncio.to_thread(note, job.id, job.lease, "end")


@pgq.task(retry=AGAIN)
def effect(job: Job, connection: psycopg.Connection[Any]) -> None:
    note(job.id, job.lease, "start")
    connection.execute("insert into effects values (%s, %s)", [job.id, job.lease])
    time.sleep(random.uniform(0, 0.5))
    note(job.id, job.lease, "end")


@pgq.task(retry=AGAIN)
def stage(job: Job) -> None:
    note(job.id, job.lease, "start")
    with job.transaction() as connection:
        connection.execute("insert into stages values (%s, %s)", [job.id, job.lease])
        time.sleep(random.uniform(0, 0.5))
    note(job.id, job.lease, "end")


TASKS = ("succeed", "fail-often", "snooze-often", "time-out-often", "effect", "stage")


def tell_rejected(event: Event) -> None:
    if isinstance(event, LeasesLost):
        for job_id in event.job_ids:
            note(job_id, 0, "rejected")


if "PGQUEUE_HISTORY_APP" in os.environ:
    events.subscribe(tell_rejected)

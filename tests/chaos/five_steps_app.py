"""The app of workers that run handlers of five steps until they are killed."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import psycopg

from pgqueue import Job, PgQueue, Retry

pgq = PgQueue()

INSERT = "insert into effects (job_id, step, attempt) values (%s, %s, %s)"
URL = os.environ.get("PGQUEUE_DATABASE_URL", "")


@pgq.task(retry=Retry(attempts=100, delays=[0]))
async def five(job: Job) -> list[int]:
    """Steps 0, 2 and 4 write with their checkpoint; 1 and 3 on a connection of their own."""
    done = []
    for n in range(5):
        step = _outside if n % 2 else _inside
        done.append(await job.step(f"step-{n}", step, job.id, n, job.attempt))
    return done


@pgq.task(retry=Retry(attempts=100, delays=[0]))
def five_in_a_thread(job: Job) -> list[int]:
    """The same, without await."""
    return [job.step(f"step-{n}", _inside_thread, job.id, n, job.attempt) for n in range(5)]


@pgq.task(batch=4, max_wait=0.05, retry=Retry(attempts=100, delays=[0]))
async def five_of_many(jobs: list[Job]) -> list[list[int]]:
    """Four jobs in one call, and each step writes with its checkpoint."""
    return [
        [await job.step(f"step-{n}", _inside, job.id, n, job.attempt) for n in range(5)]
        for job in jobs
    ]


async def _inside(
    job_id: int, step: int, attempt: int, connection: psycopg.AsyncConnection[Any]
) -> int:
    await connection.execute(INSERT, [job_id, step, attempt])
    await asyncio.sleep(_soon())
    return step * 10


async def _outside(job_id: int, step: int, attempt: int) -> int:
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        await connection.execute(INSERT, [job_id, step, attempt])
    await asyncio.sleep(_soon())
    return step * 10


def _inside_thread(
    job_id: int, step: int, attempt: int, connection: psycopg.Connection[Any]
) -> int:
    connection.execute(INSERT, [job_id, step, attempt])
    time.sleep(_soon())
    return step * 10


def _soon() -> float:
    return random.uniform(0.01, 0.1)  # noqa: S311 - so that a kill meets any moment

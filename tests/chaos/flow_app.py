"""The app of workers that run random workflows until they are killed."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from pgqueue import Job, PgQueue

pgq = PgQueue()


@pgq.task
async def node(job: Job, connection: psycopg.AsyncConnection[Any], ms: int, *, fails: bool) -> int:
    await connection.execute("insert into effects (job_id) values (%s)", [job.id])
    await asyncio.sleep(ms / 1000)
    if fails:
        raise ValueError("as it was told to")
    return job.id

"""The app of the processes that the tests of this folder start and kill."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Any

import psycopg

from pgqueue import Job, PgQueue

pgq = PgQueue()

INSERT = "insert into effects (job_id) values (%s)"


@pgq.task
async def effect(job: Job, connection: psycopg.AsyncConnection[Any], ms: int) -> None:
    await connection.execute(INSERT, [job.id])
    await asyncio.sleep(ms / 1000)


@pgq.task
def effect_sync(job: Job, connection: psycopg.Connection[Any], ms: int) -> None:
    connection.execute(INSERT, [job.id])
    time.sleep(ms / 1000)


@pgq.task
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pgq.task
async def stubborn() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@pgq.task
async def fire(window_start: str, window_end: str) -> None: ...


def tick_on_command() -> None:
    """Connect, then tick once for each line on stdin."""
    pgq.list_schedules()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(f"{pgq.tick().windows}\n")
        sys.stdout.flush()


def tick_for_ever() -> None:
    """As a worker's scheduler does, until somebody kills us."""
    while True:
        pgq.tick()
        time.sleep(0.05)


if __name__ == "__main__":
    tick_for_ever() if "ticking" in sys.argv else tick_on_command()

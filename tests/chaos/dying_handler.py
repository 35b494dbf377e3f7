"""Handlers whose process is killed at any moment; a child process finds them here."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import psycopg

from pgqueue import Job

DEADLY_TRIES = 7
"""Tries of one job in which its process is killed, unless it is done sooner."""

INSERT = "insert into effects (job_id, step, attempt) values (%s, %s, %s)"


def five_steps(url: str, job: Job) -> list[int]:
    """Steps 0, 2 and 4 write with their checkpoint; 1 and 3 on a connection of their own."""
    ended = threading.Event()
    if job.attempt <= DEADLY_TRIES:
        # The first two tries come not far, the others die anywhere or not at all.
        within = 0.03 if job.attempt <= 2 else 0.12
        threading.Thread(target=_die, args=[ended, within], daemon=True).start()
    results = [
        job.step(f"step-{n}", _outside if n % 2 else _inside, url, job.id, n, job.attempt)
        for n in range(5)
    ]
    ended.set()
    return results


def _die(ended: threading.Event, within: float) -> None:
    if not ended.wait(random.uniform(0.0, within)):  # noqa: S311 - at any moment
        os.kill(os.getpid(), signal.SIGKILL)


def _inside(
    _: str, job_id: int, step: int, attempt: int, connection: psycopg.Connection[Any]
) -> int:
    connection.execute(INSERT, [job_id, step, attempt])
    time.sleep(random.uniform(0.0, 0.03))  # noqa: S311 - so does the commit come at any moment
    return step * 10


def _outside(url: str, job_id: int, step: int, attempt: int) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(INSERT, [job_id, step, attempt])
    time.sleep(random.uniform(0.0, 0.03))  # noqa: S311
    return step * 10

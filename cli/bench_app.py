"""The app of the workers that `pgq bench` starts: two tasks that do nothing else."""

from __future__ import annotations

import time
from typing import Any

from pgqueue import PgQueue
from pgqueue.tasks.task import Task

QUEUE = "pgqueue-bench"


async def noop() -> None:
    """What remains of a job is what the queue itself costs."""


async def latency(sent: float) -> float:
    """Seconds since `sent`, a Unix time of the same machine."""
    return time.time() - sent


def register(app: PgQueue) -> tuple[Task[Any], Task[Any]]:
    """Both tasks, on the queue of the bench."""
    return (
        app.task(name="pgqueue-bench", queue=QUEUE)(noop),
        app.task(name="pgqueue-bench-latency", queue=QUEUE)(latency),
    )


pgq = PgQueue()
register(pgq)

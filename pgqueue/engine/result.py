"""Waiting for a job's end: how often to look, and what its ending means."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pgqueue.engine.inspect import Ending
from pgqueue.errors import JobFailed, ResultTimeout
from pgqueue.job import Job, Json, State

FIRST_LOOK = 0.01
LONGEST_WAIT = 0.5
"""Seconds between looks: they grow by half each time, so a long wait costs two queries a second."""


def polls(job: Job, timeout: float | None) -> Iterator[float]:
    """Seconds to wait before each next look; raises ResultTimeout when `timeout` has passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    wait = FIRST_LOOK
    while True:
        left = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
        if timeout is not None and left <= 0:
            raise ResultTimeout(job.id, timeout)
        yield min(wait, left)
        wait = min(LONGEST_WAIT, wait * 1.5)


def value_of(job: Job, ending: Ending) -> Json:
    """What the handler returned; raises JobFailed when the job did not complete."""
    if ending.state is not State.COMPLETED:
        raise JobFailed(job.id, str(ending.state), ending.reason)
    return ending.result

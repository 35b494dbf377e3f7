"""Each overlap policy under a job that outlasts its period, in a real worker."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from pgqueue import PgQueue
from proving import rows

EVERY_SECOND = "* * * * * *"
LONG = 2.6
"""Seconds that a job takes, of a schedule that fires every second."""


@pytest.mark.parametrize(
    ("overlap", "most_at_once"), [("queue", 1), ("skip", 1), ("cancel-running", 1), ("allow", 9)]
)
async def test_a_job_that_outlasts_its_period(
    database: str, overlap: str, most_at_once: int
) -> None:
    pgq = PgQueue(database)
    began: list[datetime] = []
    running, most, completed = 0, 0, 0

    @pgq.task
    async def fire(window_start: datetime) -> None:
        nonlocal running, most, completed
        began.append(window_start)
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(LONG)
            completed += 1
        finally:
            running -= 1

    pgq.put_schedule("s", cron=EVERY_SECOND, task=fire, overlap=overlap)
    worker = pgq.worker(concurrency=10, shutdown_timeout=0.1)
    work = asyncio.create_task(worker.run())
    await asyncio.sleep(6.5)
    found = dict(rows(database, "select state, count(*) from pgqueue.window_status group by 1"))
    ended = completed
    worker.stop("seen enough")
    await work
    pgq.close()
    windows = sum(found.values())
    assert windows >= 5
    assert began == sorted(began)
    assert most <= most_at_once
    if overlap == "queue":  # nothing is left out: the rest waits for its turn
        assert (ended, found["waiting"]) == (2, windows - 3)
    elif overlap == "skip":
        assert ended >= 1
        assert found["skipped"] >= 2
    elif overlap == "cancel-running":  # each is put an end to by the next
        assert ended == 0
        assert found["cancelled"] >= 3
    else:
        assert most >= 2
        assert len(began) >= windows - 1

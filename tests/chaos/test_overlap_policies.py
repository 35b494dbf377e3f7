"""Each overlap policy with a real worker, and a job that takes longer than its period."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import pairwise

import pytest

from pgqueue import PgQueue
from proving import rows, until, value

SECONDS = 2.5
POLICIES = ("queue", "skip", "cancel-running", "allow")
RUNS = """
  select (payload ->> 'window_start')::timestamptz, started_at, coalesce(finished_at, now()), state
  from pgqueue.all_jobs
  where payload ->> 'policy' = %s and started_at is not null
  order by started_at
"""
STATES = "select state, count(*) from pgqueue.window_status where schedule = %s group by 1"


@pytest.mark.slow
async def test_each_policy_does_what_it_says_with_a_job_that_outlasts_its_period(
    database: str,
) -> None:
    pgq = PgQueue(database)

    @pgq.task
    async def fire(policy: str, window_start: datetime) -> None:
        await asyncio.sleep(SECONDS)

    for policy in POLICIES:
        pgq.put_schedule(
            policy, cron="* * * * * *", task=fire, overlap=policy, payload={"policy": policy}
        )
    worker = pgq.worker(concurrency=20, shutdown_timeout=0)
    work = asyncio.create_task(worker.run())
    fires = "select count(*) >= 12 from pgqueue.windows where schedule_id = 1"
    await asyncio.to_thread(until, lambda: value(database, fires), 60)
    worker.stop("seen enough")
    await work
    pgq.close()
    runs = {policy: rows(database, RUNS, [policy]) for policy in POLICIES}
    seen = {policy: dict(rows(database, STATES, [policy])) for policy in POLICIES}
    for policy in ("queue", "skip", "cancel-running"):
        ended = [end for *_, end, _ in runs[policy]]
        began = [start for _, start, _, _ in runs[policy]]
        assert all(end <= start for end, start in zip(ended, began[1:], strict=False)), policy
        assert all(a[0] < b[0] for a, b in pairwise(runs[policy])), policy
    assert any(b[1] < a[2] for a, b in pairwise(runs["allow"]))
    # In order and without a hole; what has not had its turn waits.
    assert seen["queue"].keys() <= {"completed", "running", "queued", "waiting"}
    assert seen["queue"]["waiting"] >= 4
    assert seen["skip"]["skipped"] >= 4
    assert seen["cancel-running"]["cancelled"] >= 4
    assert "completed" not in seen["cancel-running"]
    assert seen["allow"]["completed"] >= 6

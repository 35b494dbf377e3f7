"""Held windows follow each other in a real worker, at once and one at a time."""

from __future__ import annotations

import asyncio
from datetime import datetime

from pgqueue import PgQueue
from proving import rows, until, value

BACK = "update pgqueue.schedules set next_run_at = next_run_at - interval '5 hours'"


async def test_windows_of_one_schedule_run_in_order_and_never_two_at_once(database: str) -> None:
    pgq = PgQueue(database)
    seen: list[tuple[datetime, int]] = []
    running = 0

    @pgq.task
    async def fire(window_start: datetime) -> None:
        nonlocal running
        running += 1
        seen.append((window_start, running))
        await asyncio.sleep(0.02)
        running -= 1

    pgq.put_schedule("s", cron="0 * * * *", task=fire)
    rows(database, BACK)
    await pgq.worker(burst=True, concurrency=4).run()
    pgq.close()
    assert len(seen) == 5
    assert seen == sorted(seen)
    assert {beside for _, beside in seen} == {1}
    assert value(database, "select count(*) from pgqueue.jobs") == 0


async def test_a_burst_without_a_scheduler_runs_what_waits_for_its_turn(database: str) -> None:
    pgq = PgQueue(database)
    seen: list[datetime] = []

    @pgq.task
    async def fire(window_start: datetime) -> None:
        seen.append(window_start)

    pgq.put_schedule("s", cron="0 * * * *", task=fire)
    rows(database, BACK)
    pgq.tick()
    await pgq.worker(burst=True, scheduler=False).run()
    pgq.close()
    assert len(seen) == 5


async def test_the_next_window_starts_as_soon_as_the_one_before_has_ended(database: str) -> None:
    pgq = PgQueue(database)

    @pgq.task
    async def fire() -> None: ...

    pgq.put_schedule("s", cron="0 * * * *", task=fire)
    rows(database, BACK)
    worker = pgq.worker(concurrency=1)
    work = asyncio.create_task(worker.run())
    ended = "select count(*) = 5 from pgqueue.finished_jobs"
    await asyncio.to_thread(until, lambda: value(database, ended))
    worker.stop("seen enough")
    await work
    pgq.close()
    waits = rows(
        database,
        "select extract(epoch from started_at - lag(finished_at) over (order by id)) "
        "from pgqueue.finished_jobs order by id",
    )
    # A second each, if only the scheduler's look let them go.
    assert all(wait < 0.5 for (wait,) in waits[1:]), waits

"""A thousand schedules due at once, schedulers that die, and what ten thousand cost while idle."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from processes import Processes

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.schedule.tick import look_ahead, tick
from proving import rows, until, value

SCHEDULES = 1_000
TICKERS = 4
ROUNDS = 3
EVERY = 20
"""Seconds between two fires."""

ADD = """
  insert into pgqueue.schedules (name, cron, task, next_run_at, window_parameters)
  select 's' || n, %s, 'fire', %s, '{window_start,window_end}' from generate_series(1, %s) as n
"""
COUNT = "select count(*) from pgqueue.windows where window_end = %s"
LAST = "select max(created_at) from pgqueue.windows where window_end = %s"


@pytest.mark.slow
def test_a_thousand_schedules_due_at_once_fire_once_each_though_tickers_are_killed(
    database: str, processes: Processes
) -> None:
    luck = random.Random(4)  # noqa: S311 - no secret
    seconds = time.time() // EVERY * EVERY + EVERY
    due = datetime.fromtimestamp(seconds, UTC)
    rows(database, ADD, [f"* * * * * */{EVERY}", due, SCHEDULES])
    took = []
    for fire in (due + timedelta(seconds=EVERY * number) for number in range(ROUNDS)):
        tickers = [processes.python(database, "chaos_app.py", "ticking") for _ in range(TICKERS)]
        time.sleep(max(0.0, fire.timestamp() - time.time()))
        # All but one die, somewhere in their work.
        for victim in luck.sample(tickers, TICKERS - 1):
            time.sleep(luck.uniform(0.0, 0.15))
            victim.kill()
        until(lambda fire=fire: value(database, COUNT, [fire]) == SCHEDULES)
        took.append((value(database, LAST, [fire]) - fire).total_seconds())
        for ticker in tickers:
            ticker.kill()
    sys.stdout.write(f"{SCHEDULES} schedules, 3 of 4 tickers killed: all after {took} s\n")
    doubles = (
        "select count(*) from (select schedule_id, window_start from pgqueue.windows "
        "group by 1, 2 having count(*) > 1) as twice"
    )
    assert value(database, doubles) == 0
    windows = value(database, "select count(*) from pgqueue.windows")
    assert value(database, "select count(*) from pgqueue.jobs") == windows
    assert max(took) < 2


@pytest.mark.slow
def test_an_idle_tick_with_ten_thousand_schedules_takes_less_than_5_ms(database: str) -> None:
    pgq = PgQueue(database)
    rows(database, ADD, ["0 0 1 1 *", datetime(2090, 1, 1, tzinfo=UTC), 10_000])
    rows(database, "analyze pgqueue.schedules")
    ticks, looks = [], []
    with connect(database) as connection:
        for _ in range(200):
            began = time.perf_counter()
            run(connection, tick(pgq.sql))
            middle = time.perf_counter()
            run(connection, look_ahead(pgq.sql))
            ticks.append(1000 * (middle - began))
            looks.append(1000 * (time.perf_counter() - middle))
    pgq.close()
    for name, times in (("tick", ticks), ("look", looks)):
        sys.stdout.write(
            f"idle {name}, 10,000 schedules: median {statistics.median(times):.2f} ms, "
            f"p99 {sorted(times)[197]:.2f} ms\n"
        )
    assert statistics.median(ticks) < 5
    assert statistics.median(looks) < 5


@pytest.mark.slow
async def test_an_idle_worker_starts_a_scheduled_job_well_within_a_second(database: str) -> None:
    pgq = PgQueue(database)

    @pgq.task
    async def fire() -> None: ...

    pgq.put_schedule("s", cron="* * * * * *", task=fire)
    worker = pgq.worker()
    work = asyncio.create_task(worker.run())
    ended = "select count(*) >= 61 from pgqueue.finished_jobs"
    await asyncio.to_thread(until, lambda: value(database, ended), 90)
    worker.stop("seen enough")
    await work
    pgq.close()
    lags = [
        1000 * float(lag)
        for (lag,) in rows(
            database,
            "select extract(epoch from started_at - window_end) from pgqueue.window_status "
            "where started_at is not null order by window_start offset 1",
        )
    ]
    sys.stdout.write(
        f"{len(lags)} fires: lag p50 {statistics.median(lags):.0f} ms, "
        f"p99 {sorted(lags)[int(len(lags) * 0.99) - 1]:.0f} ms, worst {max(lags):.0f} ms\n"
    )
    assert sorted(lags)[int(len(lags) * 0.99) - 1] < 1000

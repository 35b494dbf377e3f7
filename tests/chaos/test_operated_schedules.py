"""Schedules under operators who change, retry, rerun and cancel at random while schedulers die."""

from __future__ import annotations

import random
import sys
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from processes import Processes

from pgqueue import PgQueue, PgQueueError
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.schedule.release import settle_windows
from proving import Clock, rows, until, value

FOLLOWING = """
  select windows.job_id
  from pgqueue.windows
  join pgqueue.schedules on schedules.id = windows.schedule_id
  where windows.held and schedules.name = 'after'
"""
WINDOWS = "select count(*) from pgqueue.windows"
DEEDS = 30
"""So many at least, however slow the machine is."""
POLICIES = ("queue", "skip", "cancel-running", "allow")

TAKE = """
  update pgqueue.jobs
  set state = 'running', lease = 1, worker_id = 1, attempt = attempt + 1, started_at = now()
  where id in (
    select id from pgqueue.jobs
    where state = 'queued' and random() < 0.5
    for update skip locked
  )
  returning id
"""
END = """
  with
    gone as (
      delete from pgqueue.jobs
      where state = 'running'
        and (cancel_requested_at is not null or random() < 0.6)
      returning *
    )
  insert into pgqueue.finished_jobs (
    id, task, queue, priority, state, payload, tags, limits, run_at, scheduled_at, attempt,
    max_attempts, created_at, errors, headers, unique_key, started_at
  )
  select
    id, task, queue, priority,
    case
      when cancel_requested_at is not null then 'cancelled'
      when random() < 0.3 then 'failed'
      else 'completed'
    end,
    payload, tags, limits, run_at, scheduled_at, attempt, max_attempts, created_at, errors,
    headers, unique_key, started_at
  from gone
"""
BESIDE = """
  select schedules.name, array_agg(jobs.id)
  from pgqueue.windows
  join pgqueue.schedules on schedules.id = windows.schedule_id
  join pgqueue.jobs on jobs.id = windows.job_id
  where jobs.state <> 'waiting' and schedules.overlap <> 'allow' and windows.backfill_id is null
  group by 1 having count(*) > 1
"""
ORPHANS = """
  select jobs.id from pgqueue.jobs left join pgqueue.windows on windows.job_id = jobs.id
  where jobs.state = 'waiting' and windows.held is not true
"""
UNTILED = """
  select schedule_id, window_start from (
    select
      schedule_id, window_start,
      lag(window_end) over (partition by schedule_id order by window_start) as before
    from pgqueue.windows where mode = 'window'
  ) as spans
  where before <> window_start
"""
OVERFULL = """
  select backfills.id from pgqueue.backfills
  join pgqueue.windows on windows.backfill_id = backfills.id
  join pgqueue.jobs on jobs.id = windows.job_id and jobs.state <> 'waiting'
  where backfills.finished_at is null and backfills.cancelled_at is null
  group by 1 having count(*) > 2
"""


class Attack:
    def __init__(self, database: str, processes: Processes, seed: int, tickers: int) -> None:
        self.tickers_at_once = tickers
        self.database = database
        self.processes = processes
        self.luck = random.Random(seed)  # noqa: S311 - no secret
        self.clock = Clock(database)
        self.pgq = PgQueue(database)
        self.fire = self.pgq.task(name="fire")(_fire)
        self.tickers: list[Any] = []
        self.refused = 0

    def begin(self) -> None:
        rows(self.database, "select pgqueue.make_partitions()")
        for policy in POLICIES:
            self.pgq.put_schedule(policy, cron="* * * * *", task=self.fire, overlap=policy)
        self.pgq.put_schedule("after", cron="* * * * *", task=self.fire, after="queue")
        for _ in range(self.tickers_at_once):
            self.tickers.append(self._ticker())

    def step(self) -> None:
        deed = self.luck.choice([
            self.minute_later, self.minute_later, self.work, self.work, self.work, self.kill,
            self.retry, self.retry, self.rerun, self.cancel, self.run_now, self.backfill,
            self.edit, self.pause, self.settle, self.step_back,
        ])  # fmt: skip
        try:
            deed()
        except PgQueueError:
            self.refused += 1
        self.check()

    def check(self) -> None:
        with psycopg.connect(self.database) as connection:
            # One snapshot: between two looks a window may be let go.
            connection.execute("set transaction isolation level repeatable read")
            for query in (BESIDE, ORPHANS, UNTILED, OVERFULL):
                found = connection.execute(query).fetchall()  # type: ignore[arg-type]
                assert found == [], query

    def minute_later(self) -> None:
        self.clock.move(minutes=self.luck.choice([1, 1, 1, 5]))

    def step_back(self) -> None:
        self.clock.move(minutes=-3)

    def work(self) -> None:
        rows(self.database, END)
        rows(self.database, TAKE)

    def kill(self) -> None:
        place = self.luck.randrange(self.tickers_at_once)
        self.tickers[place].kill()
        self.tickers[place] = self._ticker()

    def retry(self) -> None:
        query = "select id from pgqueue.finished_jobs where state <> 'completed'"
        if ended := [one for (one,) in rows(self.database, query)]:
            self.pgq.retry(*self.luck.sample(ended, min(3, len(ended))))

    def rerun(self) -> None:
        if windows := self.pgq.list_windows(limit=50):
            self.pgq.rerun_window(self.luck.choice(windows)["id"])

    def cancel(self) -> None:
        live = [one for (one,) in rows(self.database, "select id from pgqueue.jobs")]
        deed = self.luck.choice([self.pgq.cancel, self.pgq.delete])
        deed(*self.luck.sample(live, min(2, len(live))))

    def run_now(self) -> None:
        self.pgq.run_schedule(self.luck.choice(POLICIES))

    def backfill(self) -> None:
        start = self.clock.at - timedelta(hours=1)
        begin = start - timedelta(minutes=self.luck.randrange(1, 600))
        name = self.luck.choice([*POLICIES, "after"])
        number = self.pgq.backfill(name, begin, start, concurrency=2)
        if self.luck.random() < 0.3:
            self.pgq.cancel_backfill(number)

    def edit(self) -> None:
        self.pgq.edit_schedule(self.luck.choice(POLICIES), delay=self.luck.choice([0, 5]))

    def pause(self) -> None:
        name = self.luck.choice(POLICIES)
        deed = self.luck.choice([self.pgq.pause_schedule, self.pgq.resume_schedule])
        deed(name)

    def settle(self) -> None:
        with connect(self.database) as connection:
            run(connection, settle_windows(self.pgq.sql))

    def end(self) -> None:
        """All that waits comes to its end by itself, once nobody interferes; followers aside."""
        for ticker in self.tickers:
            ticker.kill()
        waiting = rows(self.database, "select id from pgqueue.jobs where state = 'waiting'")
        self.pgq.cancel(*[job_id for (job_id,) in waiting[20:]])
        deadline = time.monotonic() + 60
        while value(self.database, "select count(*) from pgqueue.jobs"):
            left = self.pgq.list_windows(limit=1000)
            assert time.monotonic() < deadline, [
                one for one in left if one["state"] in ("waiting", "queued", "running")
            ]
            rows(self.database, END.replace("random() < 0.6", "true").replace("0.3", "-1"))
            rows(self.database, TAKE.replace("random() < 0.5", "true"))
            self.pgq.tick()
            # Of the first one some windows failed, and some never were: nobody runs them again.
            self.pgq.cancel(*[one for (one,) in rows(self.database, FOLLOWING)])
        self.check()

    def close(self) -> None:
        self.pgq.close()

    def _ticker(self) -> Any:
        return self.processes.python(self.database, "chaos_app.py", "ticking")


def _fire(window_start: str, window_end: str) -> None: ...


def _go(database: str, processes: Processes, *, seed: int, seconds: float, tickers: int) -> None:
    with closing(Attack(database, processes, seed, tickers)) as attack:
        attack.begin()
        # The schedulers take their time to start: the deeds begin when one has.
        attack.minute_later()
        until(lambda: value(database, WINDOWS), 60)
        over, steps = time.monotonic() + seconds, 0
        while time.monotonic() < over or steps < DEEDS:
            attack.step()
            steps += 1
        attack.end()
        windows = value(database, WINDOWS)
        sys.stdout.write(
            f"seed {seed}: {steps} deeds ({attack.refused} refused), {windows} windows\n"
        )
        assert windows > len(POLICIES)


def test_whatever_operators_do_windows_tile_time_and_run_one_at_a_time(
    database: str, processes: Processes
) -> None:
    _go(database, processes, seed=1, seconds=4, tickers=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_half_a_minute_of_operators_and_of_schedulers_that_die(
    database: str, processes: Processes, seed: int
) -> None:
    _go(database, processes, seed=seed, seconds=30, tickers=8)

"""Several schedulers let held windows go at once while their jobs end: one at a time, in order."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import psycopg

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.schedule.release import let_go, settle_windows
from pgqueue.schedule.tick import tick
from proving import Clock, rows, value

SCHEDULES = 3
WINDOWS = 40
LOOKERS = 4

TAKE = """
  update pgqueue.jobs set state = 'running', lease = 1, worker_id = 1, started_at = now()
  where state = 'queued' returning id
"""
LIVE = """
  select schedule_id, count(*) from pgqueue.jobs join pgqueue.windows on job_id = jobs.id
  where state <> 'waiting' group by 1 having count(*) > 1
"""
END = """
  with gone as (delete from pgqueue.jobs where id = any(%s) returning *)
  insert into pgqueue.finished_jobs (id, task, queue, priority, state, payload, tags, limits,
    run_at, scheduled_at, attempt, max_attempts, created_at, errors, headers, started_at)
  select id, task, queue, priority, 'completed', payload, tags, limits, run_at, scheduled_at,
    attempt, max_attempts, created_at, errors, headers, started_at
  from gone
"""


def test_however_many_look_at_once_one_window_of_a_schedule_runs_at_a_time(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    rows(database, "select pgqueue.make_partitions()")

    @pgq.task
    def fire(window_start: datetime) -> None: ...

    for number in range(SCHEDULES):
        pgq.put_schedule(f"s{number}", cron="0 * * * *", task=fire)
    clock.set(clock.at + timedelta(hours=WINDOWS))
    pgq.tick()
    over, errors = threading.Event(), []

    def look(number: int) -> None:
        try:
            with connect(database) as connection:
                while not over.is_set():
                    steps = (tick(pgq.sql), let_go(pgq.sql), settle_windows(pgq.sql))[number % 3]
                    run(connection, steps)
        except psycopg.Error as error:
            errors.append(error)

    lookers = [threading.Thread(target=look, args=[number]) for number in range(LOOKERS)]
    for looker in lookers:
        looker.start()
    try:
        ended = _work(database)
    finally:
        over.set()
        for looker in lookers:
            looker.join()
    assert errors == []
    order = dict(rows(database, "select job_id, schedule_id from pgqueue.windows"))
    assert len(ended) == len(set(ended)) == SCHEDULES * WINDOWS
    by_schedule: dict[int, list[int]] = {}
    for job_id in ended:
        by_schedule.setdefault(order[job_id], []).append(job_id)
    assert all(ids == sorted(ids) for ids in by_schedule.values())


def _work(database: str) -> list[int]:
    """Takes what is queued and ends it, until nothing is left; in the order of ends."""
    ended: list[int] = []
    with psycopg.connect(database, autocommit=True) as connection:
        while value(database, "select count(*) from pgqueue.jobs"):
            ids = sorted(one for (one,) in connection.execute(TAKE).fetchall())
            assert connection.execute(LIVE).fetchall() == []
            connection.execute(END, [ids])
            ended += ids
    return ended

"""Windows go when they ended long ago; what the scheduler needs of the past stays."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from endings import end
from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.sweep import sweep
from pgqueue.schedule.release import settle_windows
from pgqueue.tasks.task import Task
from proving import Clock, rows, value

DAILY = "0 0 * * *"
COUNT = "select count(*) from pgqueue.windows"


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task
    def fire(window_start: datetime, window_end: datetime) -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return fire


def _end(database: str, pgq: PgQueue, state: str = "completed") -> None:
    rows(database, "select pgqueue.make_partitions()")
    queued = rows(database, "select id from pgqueue.jobs where state = 'queued'")
    end(database, *[job_id for (job_id,) in queued], state=state)
    with connect(database) as connection:
        run(connection, settle_windows(pgq.sql))


def _sweep(database: str, pgq: PgQueue) -> int:
    """How many windows the sweep takes."""
    before = value(database, COUNT)
    with connect(database) as connection:
        run(connection, sweep(pgq.sql))
    return int(before) - int(value(database, COUNT))


def test_windows_stay_for_400_days_after_they_ended_and_the_newest_for_ever(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire, overlap="allow")
    clock.move(days=3)
    pgq.tick()
    _end(database, pgq)
    rows(database, "truncate pgqueue.finished_jobs")
    pgq.pause_schedule("s")
    clock.move(days=399)
    assert _sweep(database, pgq) == 0
    assert [one["state"] for one in pgq.list_windows("s")] == ["completed"] * 3
    clock.move(days=2)
    assert _sweep(database, pgq) == 2
    (newest,) = pgq.list_windows("s")
    # The schedule goes on where it was: no window is there twice, and time is tiled.
    pgq.edit_schedule("s", catch_up="all")
    pgq.resume_schedule("s")
    pgq.tick()
    starts = "select min(window_start) from pgqueue.windows where id <> %s"
    assert value(database, starts, [newest["id"]]) == newest["window_end"]


def test_what_is_open_or_waits_its_turn_is_never_swept(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire)
    clock.move(days=3)
    pgq.tick()
    clock.move(days=800)
    assert _sweep(database, pgq) == 0
    assert value(database, COUNT) == 3


def test_the_last_success_of_since_last_run_stays_however_old(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire, window_mode="since-last-run")
    for state in ("completed", "completed", "failed"):
        clock.move(days=1)
        pgq.tick()
        _end(database, pgq, state)
    ended = pgq.list_windows("s")[1]["window_end"]
    clock.move(days=900)
    assert _sweep(database, pgq) == 1
    rows(database, "select pgqueue.make_partitions()")
    pgq.tick()
    assert pgq.list_windows("s")[0]["window_start"] == ended


def test_a_backfill_of_long_ago_is_kept_from_when_it_ran(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire)
    long_ago = clock.at - timedelta(days=2000)
    pgq.backfill("s", long_ago, long_ago + timedelta(days=4), concurrency=5)
    pgq.tick()
    _end(database, pgq)
    pgq.tick()
    clock.move(days=399)
    assert _sweep(database, pgq) == 0
    assert pgq.list_backfills("s")[0]["completed"] == 3
    clock.move(days=2)
    _sweep(database, pgq)
    assert pgq.list_backfills("s") == []


def test_how_long_windows_are_kept_is_set_like_that_of_jobs(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire, overlap="allow")
    clock.move(days=3)
    pgq.tick()
    _end(database, pgq)
    pgq.set_retention("windows", keep=None)
    clock.move(days=4000)
    assert _sweep(database, pgq) == 0
    pgq.set_retention("windows", keep=timedelta(days=7))
    assert _sweep(database, pgq) == 2


def test_the_lag_of_a_window_counts_from_when_its_job_was_due_and_an_edit_does_not_change_it(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire, delay=600, jitter=300)
    clock.set(clock.at.replace(day=2, hour=0))
    pgq.tick()
    due = value(database, "select scheduled_at from pgqueue.jobs")
    clock.set(due + timedelta(seconds=2))
    start = "update pgqueue.jobs set state = 'running', lease = 1, worker_id = 1, started_at = "
    rows(database, start + "pgqueue.clock()")
    assert pgq.list_windows("s")[0]["lag"] == timedelta(seconds=2)
    pgq.edit_schedule("s", delay=0, jitter=0)
    assert pgq.list_windows("s")[0]["lag"] == timedelta(seconds=2)


def test_a_follower_that_waits_for_ever_is_stuck_and_the_doctor_says_so(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron="0 * * * *", task=fire)
    pgq.put_schedule("b", cron="0 * * * *", task=fire, after="a")
    clock.move(hours=1)
    pgq.tick()
    _end(database, pgq, "failed")
    pgq.pause_schedule("a")
    pgq.pause_schedule("b")
    assert pgq.schedule_problems() == []
    clock.move(minutes=61)
    (stuck,) = pgq.schedule_problems()
    assert (stuck["name"], stuck["problems"]) == ("b", ["stuck"])
    assert any("schedule 'b' has had a window open" in one.message for one in pgq.examine())

"""A schedule that is late, fails or is stuck can be seen, and says so."""

from __future__ import annotations

from datetime import datetime

import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.events import ScheduleLate, ScheduleUnhealthy
from pgqueue.schedule.release import Memory, settle_windows
from pgqueue.tasks.task import Task
from proving import Clock, Recorder, rows

HOURLY = "0 * * * *"
END_ALL = (
    "with gone as (delete from pgqueue.jobs where state = 'queued' returning *) "
    "insert into pgqueue.finished_jobs (id, task, queue, priority, state, payload, tags, limits, "
    "run_at, scheduled_at, attempt, max_attempts, created_at, errors, headers) "
    "select id, task, queue, priority, %s, payload, tags, limits, run_at, scheduled_at, "
    "attempt, max_attempts, created_at, errors, headers from gone"
)


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task
    def fire(window_start: datetime, window_end: datetime) -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    return fire


def _problems(pgq: PgQueue) -> list[str]:
    return [problem for row in pgq.schedule_problems() for problem in row["problems"]]


def _settle(database: str, pgq: PgQueue) -> int:
    with connect(database) as connection:
        return run(connection, settle_windows(pgq.sql))


@pytest.mark.usefixtures("fire")
def test_a_schedule_that_nobody_ticks_is_late_and_the_tick_that_comes_says_so(
    pgq: PgQueue, clock: Clock, recorder: Recorder
) -> None:
    clock.move(hours=1, seconds=59)
    assert _problems(pgq) == []
    clock.move(seconds=2)
    assert _problems(pgq) == ["late"]
    pgq.tick()
    assert [event.seconds for event in recorder.of(ScheduleLate)] == [61.0]
    assert _problems(pgq) == []


@pytest.mark.usefixtures("fire")
def test_the_fifth_failure_in_a_row_makes_a_schedule_unhealthy_until_one_succeeds(
    database: str, pgq: PgQueue, clock: Clock, recorder: Recorder
) -> None:
    for number in range(6):
        clock.move(hours=1)
        pgq.tick()
        rows(database, END_ALL, ["failed"])
        assert _settle(database, pgq) == 1
        assert _problems(pgq) == (["failing"] if number >= 4 else []), number
    assert [event.reason for event in recorder.of(ScheduleUnhealthy)] == [
        "its last 5 windows failed",
        "its last 6 windows failed",
    ]
    findings = {one.check: one for one in pgq.examine()}
    assert findings["schedules"].level == "error"
    clock.move(hours=1)
    pgq.tick()
    rows(database, END_ALL, ["completed"])
    _settle(database, pgq)
    assert _problems(pgq) == []


@pytest.mark.usefixtures("fire")
def test_a_window_that_does_not_end_makes_its_schedule_stuck(
    database: str, pgq: PgQueue, clock: Clock, recorder: Recorder
) -> None:
    clock.move(hours=1)
    pgq.tick()
    clock.move(minutes=59)
    assert "stuck" not in _problems(pgq)
    clock.move(minutes=2)
    assert "stuck" in _problems(pgq)
    memory = Memory()
    with connect(database) as connection:
        for _ in range(2):
            run(connection, settle_windows(pgq.sql, memory))
    (event,) = recorder.of(ScheduleUnhealthy)
    assert event.reason == "a window has been open for longer than it should"


@pytest.mark.usefixtures("fire")
def test_how_a_window_ended_is_known_after_its_job_is_gone_and_open_again_when_it_is_retried(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    clock.move(hours=1)
    pgq.tick()
    rows(database, END_ALL, ["failed"])
    _settle(database, pgq)
    (window,) = pgq.list_windows("s")
    pgq.retry(window["job_id"])
    assert pgq.list_windows("s")[0]["state"] == "queued"
    rows(database, END_ALL, ["completed"])
    assert _settle(database, pgq) == 1
    rows(database, "delete from pgqueue.finished_jobs")
    assert pgq.list_windows("s")[0]["state"] == "completed"


def test_a_healthy_database_has_nothing_to_say(pgq: PgQueue) -> None:
    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    found = {one.check: str(one.level) for one in pgq.examine()}
    assert found.pop("workers") == "warning"  # none runs here
    assert set(found.values()) == {"ok"}

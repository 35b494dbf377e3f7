"""One window of a schedule at a time, whatever operators do to its jobs meanwhile."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from endings import end
from pgqueue import PgQueue, WindowBusy
from pgqueue.db.run import Statement
from pgqueue.schedule.tick import tick
from pgqueue.tasks.task import Task
from proving import Clock, blocked_on, rows, until, value

HOURLY = "0 * * * *"
STATES = "select state from pgqueue.window_status where schedule = %s order by window_start, id"


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task
    def fire(window_start: datetime, window_end: datetime) -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return fire


def _states(database: str, name: str = "s") -> list[str]:
    return [state for (state,) in rows(database, STATES, [name])]


def _end(database: str, state: str = "completed") -> None:
    queued = rows(database, "select id from pgqueue.jobs where state = 'queued'")
    end(database, *[job_id for (job_id,) in queued], state=state)


def _jobs(database: str) -> list[int]:
    found = rows(database, "select job_id from pgqueue.windows order by window_start")
    return [job_id for (job_id,) in found]


@pytest.mark.parametrize("overlap", ["queue", "skip", "cancel-running"])
def test_a_job_retried_by_hand_does_not_run_beside_its_successor(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], overlap: str
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, overlap=overlap)
    clock.move(hours=1)
    pgq.tick()
    _end(database, "failed")
    clock.move(hours=1)
    pgq.tick()
    assert _states(database) == ["failed", "queued"]
    pgq.retry(_jobs(database)[0])
    assert _states(database) == ["waiting", "queued"]
    _end(database)
    assert pgq.tick().released == 1
    assert _states(database) == ["queued", "completed"]


def test_windows_retried_together_run_one_after_another(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    for _ in range(3):
        clock.move(hours=1)
        pgq.tick()
        _end(database, "failed")
    pgq.retry(*_jobs(database))
    assert _states(database) == ["queued", "waiting", "waiting"]


def test_a_retried_job_of_a_schedule_that_allows_overlap_runs_at_once(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, overlap="allow")
    clock.move(hours=1)
    pgq.tick()
    _end(database, "failed")
    clock.move(hours=1)
    pgq.tick()
    pgq.retry(_jobs(database)[0])
    assert _states(database) == ["queued", "queued"]


def test_a_retry_waits_for_the_tick_that_is_just_inserting_the_successor(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=1)
    pgq.tick()
    _end(database, "failed")
    (job_id,) = _jobs(database)
    with psycopg.connect(database) as ticker:
        ticker.execute("select from pgqueue.schedules for update")
        refused = pgq.retry(job_id).refused
        assert refused == {job_id: "a transaction holds its unique key or schedule: try again"}
        ticker.rollback()
    assert pgq.retry(job_id).retried == (job_id,)
    assert _states(database) == ["queued"]


def test_a_window_of_a_backfill_that_is_over_can_be_run_again(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    pgq.backfill("s", clock.at - timedelta(hours=2), clock.at)
    while pgq.list_backfills("s")[0]["state"] != "done":
        pgq.tick()
        _end(database)
    pgq.tick()
    first = pgq.list_windows("s")[-1]
    pgq.rerun_window(first["id"])
    assert _states(database) == ["queued", "completed"]
    _end(database, "failed")
    assert pgq.list_backfills("s")[0]["failed"] == 1


def test_a_backfill_of_a_follower_waits_for_the_same_spans_of_the_first(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire)
    pgq.put_schedule("b", cron=HOURLY, task=fire, after="a")
    span = (clock.at - timedelta(hours=3), clock.at)
    pgq.backfill("b", *span, concurrency=3)
    pgq.tick()
    assert _states(database, "b") == ["waiting"] * 3
    pgq.backfill("a", *span)
    pgq.tick()
    _end(database)
    pgq.tick()
    assert _states(database, "a") == ["completed", "queued", "waiting"]
    assert _states(database, "b") == ["queued", "waiting", "waiting"]


def test_a_window_whose_earlier_job_was_brought_back_is_not_run_again_beside_it(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=1)
    pgq.tick()
    (window,) = pgq.list_windows("s")
    _end(database, "failed")
    pgq.rerun_window(window["id"])
    _end(database, "failed")
    pgq.retry(window["job_id"])  # no longer the window's own
    with pytest.raises(WindowBusy):
        pgq.rerun_window(window["id"])


def test_a_broken_schedule_with_a_backfill_stops_no_other_one(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    for name in ("broken", "s"):
        pgq.put_schedule(name, cron=HOURLY, task=fire)
        pgq.backfill(name, clock.at - timedelta(hours=2), clock.at)
    rows(database, "update pgqueue.schedules set timezone = 'Mars/Base' where name = 'broken'")
    pgq.tick()
    assert _states(database, "s") == ["queued", "waiting"]
    (broken,) = [row for row in pgq.schedule_problems() if row["name"] == "broken"]
    assert broken["problems"] == ["not-ticking"]
    assert "Mars/Base" in broken["last_error"]


def test_a_schedule_is_removed_with_all_that_waits_or_not_at_all(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=3)
    pgq.tick()
    waiting = "select count(*) from pgqueue.jobs where state = 'waiting'"
    with monkeypatch.context() as broken:
        broken.setattr(pgq, "sql", {**pgq.sql, "cancel_jobs": "select 1 / 0"})
        with pytest.raises(psycopg.errors.DivisionByZero):
            pgq.remove_schedule("s")
    assert (len(pgq.list_schedules()), value(database, waiting)) == (1, 2)
    pgq.remove_schedule("s")
    assert value(database, waiting) == 0


def test_a_removal_takes_what_a_tick_is_inserting_with_it(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=3)
    with psycopg.connect(database) as ticker:
        steps = tick(pgq.sql)
        asked = next(steps)
        while not (isinstance(asked, Statement) and asked.text == "commit"):
            cursor = ticker.execute(asked.text, asked.params)  # type: ignore[union-attr]
            asked = steps.send(cursor.fetchall() if cursor.description else [])
        removing = threading.Thread(target=pgq.remove_schedule, args=["s"])
        removing.start()
        until(lambda: blocked_on(database, ticker.info.backend_pid))
        ticker.commit()
        removing.join()
    left: dict[str, Any] = dict(
        rows(database, "select state, count(*) from pgqueue.jobs group by 1")
    )
    assert left == {"queued": 1}

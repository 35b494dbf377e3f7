"""Windows of the past: filled in, run again, run by hand."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from pgqueue import PgQueue, WindowBusy
from pgqueue.db.pools import connect
from pgqueue.schedule.tick import tick
from pgqueue.tasks.task import Task
from proving import Clock, rows, value

DAILY = "0 0 * * *"
ALL = "select count(*) from pgqueue.windows"
YEAR = datetime(2029, 1, 1, tzinfo=UTC)
END_ALL = (
    "with gone as (delete from pgqueue.jobs where state = 'queued' returning *) "
    "insert into pgqueue.finished_jobs (id, task, queue, priority, state, payload, tags, limits, "
    "run_at, scheduled_at, attempt, max_attempts, created_at, errors, headers, unique_key) "
    "select id, task, queue, priority, 'completed', payload, tags, limits, run_at, scheduled_at, "
    "attempt, max_attempts, created_at, errors, headers, unique_key from gone"
)


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task
    def fire(window_start: datetime, window_end: datetime, mode: str) -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    pgq.put_schedule("s", cron=DAILY, task=fire)
    return fire


def _day(number: int) -> datetime:
    return YEAR + timedelta(days=number)


@pytest.mark.usefixtures("fire")
def test_a_dry_run_lists_the_windows_and_changes_nothing(database: str, pgq: PgQueue) -> None:
    windows = pgq.plan_backfill("s", _day(0), _day(10))
    assert [one.start for one in windows] == [_day(n) for n in range(10)]
    assert value(database, "select count(*) from pgqueue.windows") == 0


def _die_in_the_middle(database: str, pgq: PgQueue) -> int:
    """A pass whose process dies just before it writes how far it is; returns the windows lost."""
    steps = tick(pgq.sql)
    with connect(database) as connection, suppress(StopIteration):
        asked = next(steps)
        while "set reached" not in asked.text:  # type: ignore[union-attr]
            cursor = connection.execute(asked.text, asked.params)  # type: ignore[union-attr]
            asked = steps.send(cursor.fetchall() if cursor.description else [])
        ((inside,),) = connection.execute(ALL).fetchall()
        connection.close()
        return int(inside) - int(value(database, ALL))
    return 0


@pytest.mark.usefixtures("fire")
def test_a_year_of_days_interrupted_and_resumed_has_no_gap_and_no_double(
    database: str, pgq: PgQueue
) -> None:
    first = pgq.backfill("s", _day(0), _day(365), concurrency=3)
    lost = 0
    for round_ in range(400):
        if round_ % 7 == 3:
            lost += _die_in_the_middle(database, pgq)
        if round_ % 50 == 9:  # asked for again, it goes on
            assert pgq.backfill("s", _day(0), _day(365), concurrency=3) == first
        pgq.tick()
        assert value(database, "select count(*) from pgqueue.jobs where state = 'queued'") <= 3
        rows(database, END_ALL)
        if pgq.list_backfills("s")[0]["state"] == "done":
            break
    assert lost > 10, "died too early to prove anything"
    pgq.tick()
    found = rows(database, "select window_start, window_end from pgqueue.windows order by 1")
    assert (found[0][0], found[-1][1], len(found)) == (_day(0), _day(365), 365)
    assert all(end == start for (_, end), (start, _) in pairwise(found))
    (progress,) = pgq.list_backfills("s")
    assert (progress["windows"], progress["completed"], progress["state"]) == (365, 365, "done")
    jobs = "select count(*), count(distinct id) from pgqueue.all_jobs"
    assert rows(database, jobs) == [(365, 365)]


@pytest.mark.usefixtures("fire")
def test_what_was_run_is_not_run_again_by_a_backfill_and_the_tick_leaves_out_what_it_ran(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    clock.move(days=2)
    pgq.tick()
    middle = clock.at.replace(hour=0)
    # Jan 2 and 3 were run by their fires; the backfill takes the others.
    starts = [one.start.day for one in pgq.plan_backfill("s", middle - timedelta(days=4), middle)]
    assert starts == [30, 31]
    pgq.backfill("s", middle - timedelta(days=4), middle)
    pgq.tick()
    assert value(database, "select count(*) from pgqueue.windows where mode = 'backfill'") == 2
    rows(database, "update pgqueue.schedules set next_run_at = next_run_at - interval '5 days'")
    pgq.tick()
    spans = rows(database, "select window_start, count(*) from pgqueue.windows group by 1")
    assert all(count == 1 for _, count in spans)


@pytest.mark.usefixtures("fire")
def test_a_cancelled_backfill_starts_nothing_more(database: str, pgq: PgQueue) -> None:
    backfill = pgq.backfill("s", _day(0), _day(300))
    pgq.tick()
    assert pgq.cancel_backfill(backfill)
    pgq.tick()
    assert dict(rows(database, "select state, count(*) from pgqueue.jobs group by 1")) == {
        "queued": 1
    }
    rows(database, END_ALL)
    pgq.tick()
    (progress,) = pgq.list_backfills()
    assert (progress["state"], progress["open"], progress["waiting"]) == ("cancelled", 0, 0)


@pytest.mark.usefixtures("fire")
def test_a_window_run_again_has_its_new_outcome_in_place_of_the_old(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    clock.move(days=1)
    pgq.tick()
    (window,) = pgq.list_windows("s")
    with pytest.raises(WindowBusy):
        pgq.rerun_window(window["id"])
    rows(database, END_ALL)
    job_id = pgq.rerun_window(window["id"])
    (again,) = pgq.list_windows("s")
    assert (again["id"], again["run"], again["job_id"]) == (window["id"], 2, job_id)
    assert again["state"] == "queued"
    old, new = (
        value(database, "select payload from pgqueue.all_jobs where id = %s", [one])
        for one in (window["job_id"], job_id)
    )
    assert old == new
    rows(database, END_ALL)
    assert pgq.list_windows("s")[0]["state"] == "completed"


@pytest.mark.usefixtures("fire")
def test_a_schedule_run_by_hand_takes_the_time_since_its_last_fire_and_the_regular_one_comes(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    job_id = pgq.run_schedule("s")
    payload = value(database, "select payload from pgqueue.jobs where id = %s", [job_id])
    assert payload == {
        "window_start": "2030-01-01T00:00:00+00:00",
        "window_end": "2030-01-01T12:00:00+00:00",
        "mode": "manual",
    }
    with pytest.raises(WindowBusy):
        pgq.run_schedule("s")
    clock.move(hours=12)
    assert pgq.tick().windows == 1
    rows(database, END_ALL)
    clock.move(hours=-1)
    assert pgq.run_schedule("s") > job_id


@pytest.mark.usefixtures("fire")
def test_a_paused_schedule_says_who_and_why_and_catches_up_when_it_goes_on(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    assert pgq.pause_schedule("s", reason="the source is down")
    assert not pgq.pause_schedule("s")
    (row,) = pgq.list_schedules()
    assert (row["enabled"], row["paused_at"], row["pause_reason"]) == (
        False, clock.at, "the source is down",
    )  # fmt: skip
    assert row["paused_by"]
    clock.move(days=3)
    assert pgq.tick().windows == 0
    assert pgq.resume_schedule("s")
    assert pgq.tick().windows == 3
    assert pgq.list_schedules()[0]["pause_reason"] is None
    actions = rows(database, "select action, target from pgqueue.audit_log order by id")
    assert actions == [(action, "schedule s") for action in ("add", "pause", "resume")]


@pytest.mark.usefixtures("fire")
def test_an_edit_changes_what_it_names_and_nothing_else(pgq: PgQueue) -> None:
    before = pgq.list_schedules()[0]
    pgq.edit_schedule("s", overlap="skip", tags=["a"])
    assert pgq.list_schedules()[0] == {**before, "overlap": "skip", "tags": ["a"]}


@pytest.mark.usefixtures("fire")
def test_a_removed_schedule_takes_what_waits_for_its_turn_with_it(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    clock.move(days=3)
    pgq.tick()
    pgq.remove_schedule("s")
    assert rows(database, "select state, count(*) from pgqueue.all_jobs group by 1 order by 1") == [
        ("cancelled", 2), ("queued", 1),
    ]  # fmt: skip
    assert pgq.list_schedules() == []

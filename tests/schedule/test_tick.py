"""The scheduler's pass through the database: windows and their jobs, all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.events import ScheduleFailed
from pgqueue.schedule import tick as tick_module
from pgqueue.schedule.tick import tick
from pgqueue.tasks.task import Task
from proving import Clock, Recorder, rows, value

HOURLY = "0 * * * *"


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    """A task of windows; time stands at 12:00, so `clock` comes first."""

    @pgq.task
    def fire(window_start: datetime, window_end: datetime, topic: int = 0) -> None: ...

    return fire


def _windows(database: str, name: str = "s") -> list[tuple[datetime, datetime]]:
    return rows(  # type: ignore[return-value]
        database,
        "select window_start, window_end from pgqueue.windows join pgqueue.schedules "
        "on schedules.id = schedule_id where name = %s order by 1",
        [name],
    )


def _hour(number: int) -> datetime:
    return datetime(2030, 1, 1, number, tzinfo=UTC)


def test_a_due_window_comes_with_its_job_and_once(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, payload={"topic": 7})
    assert pgq.tick().windows == 0
    clock.set(_hour(13))
    assert (pgq.tick().windows, pgq.tick().windows) == (1, 0)
    assert _windows(database) == [(_hour(12), _hour(13))]
    ((payload, task, state),) = rows(
        database,
        "select payload, task, jobs.state from pgqueue.jobs join pgqueue.windows "
        "on windows.job_id = jobs.id",
    )
    assert (task, state) == ("fire", "queued")
    assert payload == {
        "topic": 7,
        "window_start": "2030-01-01T12:00:00+00:00",
        "window_end": "2030-01-01T13:00:00+00:00",
    }


def test_windows_tile_time_without_gap_or_overlap(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron="0 6,14,22 * * *", task=fire, timezone="Europe/Bratislava")
    for _ in range(30):
        clock.move(hours=7)
        pgq.tick()
    found = _windows(database)
    assert len(found) > 24
    assert all(end == start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize(
    ("catch_up", "starts"),
    [("all", [12, 13, 14, 15, 16]), ("latest", [16]), ("none", [])],
)
def test_what_was_missed_is_caught_up_by_the_policy(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], catch_up: str, starts: list[int]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, catch_up=catch_up)
    clock.set(_hour(17) + timedelta(minutes=30))
    assert pgq.tick().windows == len(starts)
    assert [start.hour for start, _ in _windows(database)] == starts
    clock.set(_hour(18))
    assert pgq.tick().windows == 1
    assert _windows(database)[-1] == (_hour(17), _hour(18))


def test_next_run_at_set_back_by_hand_repeats_no_window_and_fills_gaps(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.set(_hour(16))
    assert pgq.tick().windows == 4
    before = _windows(database)
    rows(database, "update pgqueue.schedules set next_run_at = %s", [_hour(13)])
    assert pgq.tick().windows == 0
    assert _windows(database) == before
    rows(database, "delete from pgqueue.windows where window_start = %s", [_hour(13)])
    rows(database, "delete from pgqueue.jobs")
    rows(database, "update pgqueue.schedules set next_run_at = %s", [_hour(13)])
    assert pgq.tick().windows == 1
    assert _windows(database) == before


def test_a_failing_schedule_is_marked_and_waits_and_the_others_go_on(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], recorder: Recorder
) -> None:
    for name in ("a", "bad-cron", "bad-zone", "z"):
        pgq.put_schedule(name, cron=HOURLY, task=fire)
    rows(database, "update pgqueue.schedules set cron = 'x y' where name = 'bad-cron'")
    rows(database, "update pgqueue.schedules set timezone = 'Mars/Base' where name = 'bad-zone'")
    clock.set(_hour(13))

    assert pgq.tick().windows == 2
    assert {event.schedule for event in recorder.of(ScheduleFailed)} == {"bad-cron", "bad-zone"}
    marked = rows(
        database, "select name, failures from pgqueue.schedules where last_error is not null"
    )
    assert sorted(marked) == [("bad-cron", 1), ("bad-zone", 1)]

    pgq.tick()
    assert len(recorder.of(ScheduleFailed)) == 2, "tried again without a wait"
    clock.move(seconds=5)
    pgq.tick()
    assert len(recorder.of(ScheduleFailed)) == 4
    # Repaired, it catches up and the mark goes.
    rows(database, "update pgqueue.schedules set cron = %s, timezone = 'UTC'", [HOURLY])
    clock.move(hours=2)
    pgq.tick()
    assert _windows(database, "bad-cron") == _windows(database, "a")
    assert value(database, "select sum(failures) from pgqueue.schedules") == 0


def test_a_schedule_whose_job_cannot_be_inserted_keeps_no_window(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    pgq.put_schedule("z", cron=HOURLY, task=fire)
    rows(database, "update pgqueue.schedules set task = '' where name = 's'")
    clock.set(_hour(13))
    assert pgq.tick().windows == 1
    assert _windows(database) == []
    assert len(_windows(database, "z")) == 1


def test_a_pass_that_dies_leaves_neither_window_nor_job_nor_a_moved_schedule(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.set(_hour(13))
    steps = tick(pgq.sql)
    with connect(database) as connection:
        asked = next(steps)
        while "advance" not in str(asked) and "next_run_at = " not in str(asked):
            with connection.cursor() as cursor:
                cursor.execute(asked.text, asked.params)  # type: ignore[union-attr]
                answer = cursor.fetchall() if cursor.description else []
            asked = steps.send(answer)
        inserted = connection.execute("select count(*) from pgqueue.windows").fetchall()
        assert inserted == [(1,)], "died too early to prove anything"
        connection.close()
    assert (_windows(database), value(database, "select count(*) from pgqueue.jobs")) == ([], 0)
    assert pgq.tick().windows == 1


PARAMETERS: list[tuple[Callable[..., Any], set[str]]] = [
    (lambda: None, set()),
    (lambda window_end: None, {"window_end"}),
    (lambda mode, window_start: None, {"mode", "window_start"}),
]


@pytest.mark.parametrize(("handler", "names"), PARAMETERS)
def test_the_payload_is_filled_only_where_the_task_has_the_parameters(
    database: str, pgq: PgQueue, clock: Clock, handler: Callable[..., Any], names: set[str]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=pgq.task(name="t")(handler))
    clock.set(_hour(13))
    pgq.tick()
    assert set(value(database, "select payload from pgqueue.jobs")) == names


def test_a_task_may_take_its_window_as_text(database: str, pgq: PgQueue, clock: Clock) -> None:
    def handler(window_start: str) -> None: ...

    pgq.put_schedule("s", cron=HOURLY, task=pgq.task(name="t")(handler))
    clock.set(_hour(13))
    pgq.tick()
    assert value(database, "select payload from pgqueue.jobs") == {
        "window_start": "2030-01-01T12:00:00+00:00"
    }


def test_what_the_payload_says_itself_is_not_filled_in(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    fixed = "2020-01-01T00:00:00Z"
    pgq.put_schedule("s", cron=HOURLY, task=fire, payload={"window_start": fixed})
    clock.set(_hour(13))
    pgq.tick()
    assert value(database, "select payload ->> 'window_start' from pgqueue.jobs") == fixed


def test_thousands_of_missed_minutes_come_in_several_passes(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron="* * * * *", task=fire)
    clock.move(minutes=2500)
    with connect(database) as connection:
        begins = 0
        steps = tick(pgq.sql)

        def counted() -> Any:
            nonlocal begins
            asked = next(steps)
            while True:
                begins += str(getattr(asked, "text", "")).startswith("begin")
                answer = yield asked
                try:
                    asked = steps.send(answer)
                except StopIteration as stop:
                    return stop.value

        assert run(connection, counted()).windows == 2500
    assert begins == 1 + -(-2500 // tick_module.WINDOWS_A_PASS)
    assert value(database, "select count(*) from pgqueue.jobs") == 2500


def test_what_waits_for_its_turn_gets_it_while_another_schedule_catches_up(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_module, "WINDOWS_A_PASS", 10)
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=3)
    pgq.tick()
    rows(database, "delete from pgqueue.jobs where state = 'queued'")
    pgq.put_schedule("behind", cron="* * * * *", task=fire, overlap="allow")
    clock.move(minutes=30 * 10 + 5)
    steps = tick(pgq.sql)
    with connect(database) as connection:
        asked: Any = next(steps)
        while value(database, "select count(*) from pgqueue.jobs where state = 'queued' "
                    "and unique_key like 'schedule:1:%'") == 0:  # fmt: skip
            cursor = connection.execute(asked.text, asked.params)
            asked = steps.send(cursor.fetchall() if cursor.description else [])
        left = "select next_run_at < pgqueue.clock() from pgqueue.schedules where name = 'behind'"
        assert value(database, left), "only when it had caught up"


def test_a_ticker_leaves_the_schedules_that_another_one_holds(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    for name in ("s", "other"):
        pgq.put_schedule(name, cron=HOURLY, task=fire)
    clock.set(_hour(13))
    with psycopg.connect(database) as first, connect(database) as second:
        first.execute("select from pgqueue.schedules where name = 's' for update")
        second.execute("set lock_timeout = '2s'")
        assert run(second, tick(pgq.sql)).windows == 1
        assert _windows(database) == []
        first.commit()
        assert run(second, tick(pgq.sql)).windows == 1


def test_a_schedule_that_is_not_enabled_does_not_fire_and_catches_up_later(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    rows(database, "update pgqueue.schedules set enabled = false")
    clock.set(_hour(15))
    assert pgq.tick().windows == 0
    rows(database, "update pgqueue.schedules set enabled = true")
    assert pgq.tick().windows == 3


def test_the_session_s_zone_changes_neither_windows_nor_payloads(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    name = value(database, "select current_database()")
    rows(database, f"alter database {name} set timezone = 'Asia/Tokyo'")
    stored = pgq.put_schedule("s", cron="0 14 * * *", task=fire)
    assert stored.next_run_at.isoformat() == "2030-01-01T14:00:00+00:00"
    clock.set(_hour(14))
    assert pgq.tick().windows == 1
    end = value(database, "select payload ->> 'window_end' from pgqueue.jobs")
    assert end == "2030-01-01T14:00:00+00:00"


@pytest.mark.parametrize("at", ["-infinity", "infinity"])
def test_an_endless_next_run_at_stops_no_other_schedule(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None], at: str
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    pgq.put_schedule("z", cron=HOURLY, task=fire)
    with suppress(psycopg.errors.CheckViolation):  # refused where it was said: as good
        rows(database, "update pgqueue.schedules set next_run_at = %s where name = 's'", [at])
    clock.set(_hour(13))
    pgq.tick()
    assert len(_windows(database, "z")) == 1

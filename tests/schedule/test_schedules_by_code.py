"""Schedules from code, sync and async: what is asked for is done whole, or refused plainly."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import ConfigError, PgQueue, ScheduleNotFound
from pgqueue.tasks.task import Task
from proving import Clock, blocked_on, rows, until

DAILY = "0 0 * * *"


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task(queue="night", timeout=90)
    def fire(window_start: datetime, window_end: datetime) -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return fire


async def test_async_code_does_all_that_sync_code_does(
    pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    stored = await pgq.aput_schedule("s", cron=DAILY, task=fire)
    assert stored.is_new
    await pgq.aedit_schedule("s", overlap="skip")
    assert await pgq.apause_schedule("s", reason="why not")
    assert await pgq.aresume_schedule("s")
    fires, zone = await pgq.anext_fires("s", 1)
    assert (fires, zone) == ([datetime(2030, 1, 2, tzinfo=UTC)], "UTC")
    clock.move(days=1)
    assert (await pgq.atick()).jobs == 1
    (window,) = await pgq.alist_windows("s")
    job_id = await pgq.arun_schedule("s")
    await pgq.acancel(job_id, window["job_id"])
    await pgq.arerun_window(window["id"])
    span = (date(2029, 12, 1), date(2029, 12, 3))
    assert len(await pgq.aplan_backfill("s", *span)) == 2
    number = await pgq.abackfill("s", *span)
    assert [one["id"] for one in await pgq.alist_backfills("s")] == [number]
    assert await pgq.acancel_backfill(number)
    assert [row["overlap"] for row in await pgq.alist_schedules()] == ["skip"]
    assert await pgq.aschedule_problems() == []
    assert {one.check for one in await pgq.aexamine()} >= {"schedules", "workers"}
    await pgq.aremove_schedule("s")
    assert pgq.list_schedules() == []


async def test_a_schedule_may_be_stored_in_an_async_transaction_of_the_callers(
    database: str, pgq: PgQueue, fire: Task[None]
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await pgq.aput_schedule("s", cron=DAILY, task=fire, connection=connection)
        assert pgq.list_schedules() == []
        await connection.rollback()
    assert pgq.list_schedules() == []


def test_an_option_can_be_taken_back(pgq: PgQueue, fire: Task[None]) -> None:
    pgq.put_schedule(
        "s", cron=DAILY, task=fire, queue="day", timeout=5, tenant="acme", delay=60,
        overlap="skip", ends_at=date(2031, 1, 1), catch_up_max_age=3600.0,
    )  # fmt: skip
    cleared = ("queue", "timeout", "tenant", "delay", "overlap", "ends_at", "catch_up_max_age")
    pgq.edit_schedule("s", **dict.fromkeys(cleared))
    (row,) = pgq.list_schedules()
    assert [row[name] for name in cleared] == ["night", 90.0, None, 0.0, "queue", None, None]
    with pytest.raises(ConfigError, match="cron cannot be taken back"):
        pgq.edit_schedule("s", cron=None)


def test_two_edits_at_once_both_count(database: str, pgq: PgQueue, fire: Task[None]) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire)
    with psycopg.connect(database) as other:
        other.execute("update pgqueue.schedules set delay = 7")
        editing = threading.Thread(target=pgq.edit_schedule, args=["s"], kwargs={"jitter": 5})
        editing.start()
        until(lambda: blocked_on(database, other.info.backend_pid))
        other.commit()
        editing.join()
    (row,) = pgq.list_schedules()
    assert (row["delay"], row["jitter"]) == (7.0, 5.0)


def test_two_that_are_made_to_wait_for_each_other_at_once_are_told_apart(
    database: str, pgq: PgQueue, fire: Task[None]
) -> None:
    for name in ("a", "b"):
        pgq.put_schedule(name, cron=DAILY, task=fire)
    refused: list[Exception] = []

    def follow() -> None:
        try:
            pgq.edit_schedule("b", after="a")
        except ConfigError as error:
            refused.append(error)

    with psycopg.connect(database) as connection:
        pgq.put_schedule("a", cron=DAILY, task=fire, after="b", connection=connection)
        following = threading.Thread(target=follow)
        following.start()
        until(lambda: blocked_on(database, connection.info.backend_pid))
        connection.commit()
        following.join()
    assert "wait for ever" in str(refused)


def test_a_schedule_that_others_follow_keeps_windows_that_they_can_have(
    pgq: PgQueue, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=DAILY, task=fire)
    pgq.put_schedule("b", cron=DAILY, task=fire, after="a")
    with pytest.raises(ConfigError, match="another one runs after it"):
        pgq.edit_schedule("a", window_mode="since-last-run")


def test_a_schedule_that_others_follow_is_not_removed_under_them(
    pgq: PgQueue, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=DAILY, task=fire)
    pgq.put_schedule("b", cron=DAILY, task=fire, after="a")
    with pytest.raises(ConfigError, match="'b' runs after 'a'"):
        pgq.remove_schedule("a")
    pgq.edit_schedule("b", after=None)
    pgq.remove_schedule("a")
    assert [row["name"] for row in pgq.list_schedules()] == ["b"]


def test_a_day_begins_at_the_schedules_own_midnight(pgq: PgQueue, fire: Task[None]) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire, timezone="Europe/Bratislava")
    windows = pgq.plan_backfill("s", date(2029, 3, 24), date(2029, 3, 26))
    # The 25th has 23 hours there.
    assert [(one.start, one.end - one.start) for one in windows] == [
        (datetime(2029, 3, 23, 23, tzinfo=UTC), timedelta(hours=24)),
        (datetime(2029, 3, 24, 23, tzinfo=UTC), timedelta(hours=23)),
    ]
    fires, _ = pgq.next_fires("s", 1, after=date(2029, 7, 1))
    assert fires == [datetime(2029, 7, 1, 22, tzinfo=UTC)]
    stored = pgq.edit_schedule("s", starts_at=date(2030, 7, 1))
    assert stored.next_run_at == datetime(2030, 6, 30, 22, tzinfo=UTC)


def test_coming_fires_keep_to_the_life_of_a_schedule_and_to_next_run_at(
    database: str, pgq: PgQueue, fire: Task[None]
) -> None:
    days = [datetime(2030, 1, day, tzinfo=UTC) for day in range(1, 12)]
    pgq.put_schedule("s", cron=DAILY, task=fire, starts_at=days[4], ends_at=days[7])
    assert pgq.next_fires("s")[0] == days[4:8]
    assert pgq.next_fires("s", after=datetime(2029, 1, 1, tzinfo=UTC))[0] == days[4:8]
    rows(database, "update pgqueue.schedules set next_run_at = %s", [days[6]])
    assert pgq.next_fires("s")[0] == days[6:8]


NOWHEN: list[Any] = [None, "2030-01-01", datetime(2029, 1, 1), date.min]  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("moment", NOWHEN)
def test_what_is_no_time_is_refused(pgq: PgQueue, fire: Task[None], moment: Any) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(ConfigError, match="start"):
        pgq.plan_backfill("s", moment, now)
    with pytest.raises(ConfigError, match="end"):
        pgq.backfill("s", now - timedelta(days=3), moment)


def test_a_dry_run_of_years_of_minutes_is_refused_and_the_backfill_itself_is_paged(
    database: str, pgq: PgQueue, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron="* * * * *", task=fire)
    span = (date(2020, 1, 1), date(2030, 1, 1))
    with pytest.raises(ConfigError, match="more than 100,000 windows"):
        pgq.plan_backfill("s", *span)
    pgq.backfill("s", *span, concurrency=2)
    pgq.tick()
    (progress,) = pgq.list_backfills("s")
    assert (progress["windows"], progress["waiting"], progress["open"]) == (200, 198, 2)


ABSURD: list[tuple[str, list[Any], str]] = [
    ("next_fires", ["s", 0], "count 0"),
    ("next_fires", ["s", "3"], "count '3'"),
    ("next_fires", ["s", 10**9], "count 1000000000"),
    ("pause_schedule", ["a\nb"], "schedule name"),
    ("remove_schedule", ["\ud800"], "schedule name"),
    ("run_schedule", [None], "schedule name 'None'"),
    ("rerun_window", [2**63], "window id"),
    ("rerun_window", [True], "window id True"),
    ("cancel_backfill", ["x"], "backfill id 'x'"),
]


@pytest.mark.parametrize(("verb", "arguments", "says"), ABSURD)
def test_absurd_values_are_refused_before_the_database_is_asked(
    verb: str, arguments: list[Any], says: str
) -> None:
    pgq = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ConfigError, match=says):
        getattr(pgq, verb)(*arguments)


def test_a_run_by_hand_that_has_nothing_to_cover_says_so(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    """Since the last run nothing has passed, or the database's clock has stepped back."""
    pgq.put_schedule("s", cron=DAILY, task=fire, window_mode="since-last-run")
    pgq.cancel(pgq.run_schedule("s"))
    rows(database, "update pgqueue.windows set outcome = 'completed'")
    for _ in range(2):
        with pytest.raises(ConfigError, match="'s' has run up to 2030-01-01 12:00:00"):
            pgq.run_schedule("s")
        clock.move(hours=-2)
    assert len(pgq.list_windows("s")) == 1


@pytest.mark.parametrize(
    "change",
    [
        *("next_run_at = null", "next_run_at = 'infinity'", "next_run_at = '200000-01-01'"),
        *(
            "starts_at = '200000-01-01'",
            "ends_at = '0044-03-15 BC'",
            "delay = 'NaN'",
            "jitter = -1",
        ),
        *("catch_up_max_count = 1000000000", "catch_up_max_age = 'NaN'", "after_id = id"),
        *("overlap = 'maybe'", "window_mode = 'manual'", "payload = '[]'", "name = ''"),
    ],
)
def test_sql_cannot_store_what_no_tick_could_use(
    database: str, pgq: PgQueue, fire: Task[None], change: str
) -> None:
    pgq.put_schedule("s", cron=DAILY, task=fire)
    with pytest.raises(psycopg.IntegrityError):
        rows(database, "update pgqueue.schedules set " + change)  # noqa: S608 - our own list
    assert [row["name"] for row in pgq.list_schedules()] == ["s"]


def test_what_does_not_exist_is_said_with_the_command_that_lists(pgq: PgQueue) -> None:
    with pytest.raises(ScheduleNotFound, match="backfill 7 does not exist: `pgq schedule backf"):
        pgq.cancel_backfill(7)
    with pytest.raises(ScheduleNotFound, match="window 7 does not exist: `pgq window list`"):
        pgq.rerun_window(7)
    with pytest.raises(ScheduleNotFound, match="schedule 'x' does not exist"):
        pgq.list_backfills("x")
    with pytest.raises(ConfigError, match="schedule name"):
        pgq.list_backfills("\x00")
    with pytest.raises(ConfigError, match="state 'done' is not valid: queued"):
        pgq.list_windows(state="done")

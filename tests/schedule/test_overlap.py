"""What becomes of windows that are due while an earlier one is still under way, or were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgqueue import PgQueue
from pgqueue.tasks.task import Task
from proving import Clock, rows, value

HOURLY = "0 * * * *"
STATES = (
    "select extract(hour from window_start at time zone 'UTC')::int, state "
    "from pgqueue.window_status where schedule = %s order by window_start"
)


@pytest.fixture
def fire(pgq: PgQueue, clock: Clock) -> Task[None]:
    @pgq.task(priority=7, tags=["nightly"], timeout=90)
    def fire(window_start: datetime, window_end: datetime, mode: str = "") -> None: ...

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return fire


def _hour(number: int) -> datetime:
    return datetime(2030, 1, 1, number, tzinfo=UTC)


def _states(database: str, name: str = "s") -> list[tuple[Any, ...]]:
    return rows(database, STATES, [name])


def _work(database: str) -> None:
    """A worker takes all that is due."""
    rows(
        database,
        "update pgqueue.jobs set state = 'running', lease = 1, worker_id = 1, "
        "attempt = attempt + 1, started_at = pgqueue.clock() "
        "where state = 'queued' and run_at <= pgqueue.clock()",
    )


def _end(database: str, state: str = "completed") -> None:
    """The running jobs end so."""
    rows(
        database,
        "with gone as (delete from pgqueue.jobs where state = 'running' returning *) "
        "insert into pgqueue.finished_jobs (id, task, queue, priority, state, payload, tags, "
        "limits, run_at, scheduled_at, attempt, max_attempts, created_at, errors, headers, "
        "unique_key, started_at) select id, task, queue, priority, %s, payload, tags, limits, "
        "run_at, scheduled_at, attempt, max_attempts, created_at, errors, headers, unique_key, "
        "started_at from gone",
        [state],
    )


def test_queue_runs_one_window_at_a_time_and_in_order(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.set(_hour(15))
    ticked = pgq.tick()
    assert (ticked.windows, ticked.jobs, ticked.released) == (3, 3, 0)
    assert _states(database) == [(12, "queued"), (13, "waiting"), (14, "waiting")]
    _work(database)
    clock.set(_hour(16))
    pgq.tick()
    assert [state for _, state in _states(database)] == ["running", *["waiting"] * 3]
    _end(database, "failed")
    assert pgq.tick().released == 1
    assert [state for _, state in _states(database)] == ["failed", "queued", "waiting", "waiting"]


def test_a_window_whose_job_was_deleted_or_cancelled_holds_nobody_up(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.set(_hour(17))
    pgq.tick()
    ids = [id_ for (id_,) in rows(database, "select job_id from pgqueue.windows order by id")]
    pgq.delete(ids[0], ids[1])
    pgq.cancel(ids[2])
    assert pgq.tick().released == 1
    assert [state for _, state in _states(database)] == [
        "lost", "lost", "cancelled", "queued", "waiting",
    ]  # fmt: skip


def test_hundreds_of_cancelled_windows_are_closed_by_one_tick(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.move(hours=400)
    rows(database, "select pgqueue.make_partitions()")
    pgq.tick()
    ids = [id_ for (id_,) in rows(database, "select job_id from pgqueue.windows order by id")]
    pgq.cancel(*ids[:399])
    assert pgq.tick().released == 1
    found = [state for _, state in _states(database)]
    assert found == [*["cancelled"] * 399, "queued"]


def test_a_retried_job_of_an_earlier_window_goes_first(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire)
    clock.set(_hour(14))
    pgq.tick()
    _work(database)
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null, "
        "run_at = run_at + interval '1 hour' where state = 'running'",
    )
    assert pgq.tick().released == 0
    assert [state for _, state in _states(database)] == ["queued", "waiting"]


def test_skip_leaves_out_what_comes_while_one_is_under_way_and_shows_it(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, overlap="skip")
    clock.set(_hour(13))
    pgq.tick()
    _work(database)
    clock.set(_hour(15))
    ticked = pgq.tick()
    assert (ticked.windows, ticked.jobs) == (2, 0)
    assert _states(database) == [(12, "running"), (13, "skipped"), (14, "skipped")]
    _end(database)
    clock.set(_hour(16))
    assert pgq.tick().jobs == 1
    assert _states(database)[-1] == (15, "queued")


def test_cancel_running_ends_the_earlier_one_before_the_newer_starts(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, overlap="cancel-running")
    clock.set(_hour(13))
    pgq.tick()
    _work(database)
    clock.set(_hour(14))
    assert pgq.tick().released == 0
    assert _states(database) == [(12, "running"), (13, "waiting")]
    marked = "select count(*) from pgqueue.jobs where cancel_requested_at is not null"
    assert value(database, marked) == 1
    _end(database, "cancelled")
    assert pgq.tick().released == 1
    assert _states(database) == [(12, "cancelled"), (13, "queued")]
    # What waits is put an end to at once, and of several the newest alone runs.
    clock.set(_hour(17))
    assert pgq.tick().released == 1
    assert [state for _, state in _states(database)] == [
        "cancelled", "cancelled", "skipped", "skipped", "queued",
    ]  # fmt: skip


def test_allow_lets_windows_run_beside_each_other(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, overlap="allow")
    clock.set(_hour(15))
    pgq.tick()
    assert [state for _, state in _states(database)] == ["queued"] * 3


@pytest.mark.parametrize(
    ("policies", "hours"),
    [
        ({}, range(12, 36)),
        ({"catch_up": "latest"}, [35]),
        ({"catch_up": "none"}, []),
        ({"catch_up_max_age": 3 * 3600}, [33, 34, 35]),
        ({"catch_up_max_count": 5}, [31, 32, 33, 34, 35]),
        ({"catch_up_max_count": 5, "catch_up_max_age": 3 * 3600}, [33, 34, 35]),
        ({"catch_up_max_count": 99}, range(12, 36)),
    ],
)
def test_of_a_day_that_was_missed_each_policy_gives_exactly_its_windows(
    database: str,
    pgq: PgQueue,
    clock: Clock,
    fire: Task[None],
    policies: dict[str, Any],
    hours: list[int],
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, **policies)
    begin = _hour(0)
    clock.set(begin + timedelta(hours=36, minutes=30))
    pgq.tick()
    found = rows(database, "select window_start, window_end from pgqueue.windows order by 1")
    hour = timedelta(hours=1)
    assert found == [(begin + n * hour, begin + (n + 1) * hour) for n in hours]
    # Going on, there is neither gap nor overlap with what comes next.
    clock.set(begin + timedelta(hours=37))
    assert pgq.tick().windows == 1


def test_after_three_days_down_the_policies_give_their_windows(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    for policy in ("all", "latest", "none"):
        pgq.put_schedule(policy, cron="0 6,14,22 * * *", task=fire, catch_up=policy)
    pgq.put_schedule("capped", cron="0 6,14,22 * * *", task=fire, catch_up_max_count=4)
    clock.move(days=3)
    pgq.tick()
    counts = rows(
        database,
        "select schedule, count(*) from pgqueue.window_status group by 1 order by 1",
    )
    assert counts == [("all", 9), ("capped", 4), ("latest", 1)]


def test_jobs_carry_what_their_task_and_schedule_say(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire)
    pgq.put_schedule("b", cron=HOURLY, task=fire, priority=2, tenant="acme", tags=["x"], timeout=5)
    clock.set(_hour(13))
    pgq.tick()
    found = rows(database, "select priority, tags, tenant, timeout from pgqueue.jobs order by id")
    assert found == [(7, ["nightly"], None, 90.0), (2, ["x"], "acme", 5.0)]


def test_delay_and_jitter_put_the_job_off_by_at_most_their_sum_and_alike_for_all_tickers(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    for number in range(20):
        pgq.put_schedule(f"s{number}", cron=HOURLY, task=fire, delay=60, jitter=600)
    clock.set(_hour(13))
    pgq.tick()
    waits = [
        (at - _hour(13)).total_seconds()
        for (at,) in rows(database, "select scheduled_at from pgqueue.jobs")
    ]
    assert all(60 <= wait <= 660 for wait in waits)
    assert len(set(waits)) > 15


def test_a_schedule_fires_from_its_start_to_its_end_and_no_more(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    stored = pgq.put_schedule(
        "s", cron=HOURLY, task=fire, overlap="allow", starts_at=_hour(14), ends_at=_hour(16)
    )
    assert stored.next_run_at == _hour(14)
    clock.set(_hour(13))
    assert pgq.tick().windows == 0
    clock.set(_hour(20))
    assert pgq.tick().windows == 3
    assert [hour for hour, _ in _states(database)] == [13, 14, 15]
    clock.set(_hour(22))
    assert pgq.tick().windows == 0
    assert all("late" not in one["problems"] for one in pgq.schedule_problems())


def test_a_window_of_a_follower_waits_until_the_same_span_of_the_first_is_completed(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire)
    pgq.put_schedule("b", cron=HOURLY, task=fire, after="a")
    clock.set(_hour(13))
    pgq.tick()
    assert (_states(database, "a"), _states(database, "b")) == ([(12, "queued")], [(12, "waiting")])
    (waiting,) = pgq.list_windows("b")
    (cause,) = [one for one in pgq.why(waiting["job_id"]) if one.cause == "waiting"]
    assert "an earlier window of its schedule" in cause.message
    _work(database)
    _end(database, "failed")
    pgq.tick()
    assert _states(database, "b") == [(12, "waiting")]
    # Run again with success, it lets the follower go.
    (first,) = pgq.list_windows("a")
    pgq.rerun_window(first["id"])
    _work(database)
    _end(database)
    pgq.tick()
    assert _states(database, "b") == [(12, "queued")]


def test_a_follower_run_by_hand_waits_for_nobody(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire)
    pgq.put_schedule("b", cron=HOURLY, task=fire, after="a")
    clock.set(_hour(13) - timedelta(minutes=5))
    job_id = pgq.run_schedule("b")
    assert value(database, "select state from pgqueue.jobs where id = %s", [job_id]) == "queued"


def test_nothing_can_run_after_windows_that_no_other_schedule_has(
    pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire, window_mode="since-last-run")
    with pytest.raises(ValueError, match="no other schedule has the same"):
        pgq.put_schedule("b", cron=HOURLY, task=fire, after="a")


def test_schedules_that_would_wait_for_each_other_are_refused(
    pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("a", cron=HOURLY, task=fire)
    pgq.put_schedule("b", cron=HOURLY, task=fire, after="a")
    with pytest.raises(ValueError, match="wait for ever"):
        pgq.put_schedule("a", cron=HOURLY, task=fire, after="b")


def test_since_last_run_goes_from_the_last_success_to_now_whatever_failed_between(
    database: str, pgq: PgQueue, clock: Clock, fire: Task[None]
) -> None:
    pgq.put_schedule("s", cron=HOURLY, task=fire, window_mode="since-last-run")
    spans = "select window_start, window_end, run, mode from pgqueue.windows order by 1"
    clock.set(_hour(13))
    pgq.tick()
    _work(database)
    _end(database)
    clock.set(_hour(14))
    pgq.tick()
    _work(database)
    _end(database, "failed")
    clock.set(_hour(17))
    pgq.tick()
    mode = "since-last-run"
    assert rows(database, spans) == [
        (_hour(12), _hour(13), 1, mode),
        (_hour(13), _hour(17), 2, mode),
    ]
    payload = value(database, "select payload from pgqueue.jobs")
    assert (payload["window_start"][:16], payload["mode"]) == ("2030-01-01T13:00", mode)
    # While it is under way there is no other one, and the next begins where this one ends.
    _work(database)
    clock.set(_hour(18))
    assert pgq.tick().windows == 0
    _end(database)
    clock.set(_hour(19))
    pgq.tick()
    assert rows(database, spans)[-1] == (_hour(17), _hour(19), 1, mode)

"""Options that are not valid are refused where they are given, in one clear line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pgqueue import PgQueue, Retry
from pgqueue.errors import ConfigError
from pgqueue.tasks.task import Task
from proving import Clock, rows, value

LONG = "x" * 3000
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the mistake under test
SIGNS = "is not valid: 1 to 100 letters, digits and the signs _ . : -"
WAIT = "is not valid: 0 seconds or more, 100 years at most"
SPAN = "is not valid: more than 0 seconds, 100 years at most"
TENANT = "is not valid: text of 1 to 200 bytes, without NUL or lone surrogates"
KEY = "is not valid: text of 1 to 2000 bytes, without NUL or lone surrogates"


@pytest.fixture
def noop(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def noop() -> None: ...

    return noop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, f"queue name '' {SIGNS}"),
        ({"queue": "a b"}, f"queue name 'a b' {SIGNS}"),
        ({"queue": "a\n"}, f"queue name 'a\\n' {SIGNS}"),
        ({"queue": None}, f"queue name None {SIGNS}"),
        ({"priority": 10}, "priority 10 is not valid: 0 to 9, higher first"),
        ({"priority": -1}, "priority -1 is not valid: 0 to 9, higher first"),
        ({"priority": True}, "priority True is not valid: 0 to 9, higher first"),
        ({"priority": "5"}, "priority '5' is not valid: 0 to 9, higher first"),
        ({"priority": 5.0}, "priority 5.0 is not valid: 0 to 9, higher first"),
        ({"run_at": NAIVE}, "run_at 2024-01-01T00:00:00 has no time zone: use an aware datetime"),
        ({"run_at": "2024-01-01"}, "run_at '2024-01-01' is not valid: use an aware datetime"),
        ({"delay": -1}, f"delay -1 {WAIT}"),
        ({"delay": float("nan")}, f"delay nan {WAIT}"),
        ({"delay": float("inf")}, f"delay inf {WAIT}"),
        ({"delay": "5"}, f"delay '5' {WAIT}"),
        ({"delay": None}, f"delay None {WAIT}"),
        (
            {"delay": timedelta(seconds=-1)},
            f"delay datetime.timedelta(days=-1, seconds=86399) {WAIT}",
        ),
        (
            {"delay": 1, "run_at": datetime(2024, 1, 1, tzinfo=UTC)},
            "run_at and delay exclude each other: give one of them",
        ),
        ({"timeout": 0}, f"timeout 0 {SPAN}"),
        (
            {"timeout": float("inf")},
            f"timeout inf {SPAN}",
        ),
        (
            {"timeout": float("nan")},
            f"timeout nan {SPAN}",
        ),
        ({"timeout": "5"}, f"timeout '5' {SPAN}"),
        ({"tags": "abc"}, "tags 'abc' are not valid: a list of strings"),
        ({"tags": [1]}, "tags (1,) are not valid: a list of strings"),
        ({"tags": None}, "tags None are not valid: a list of strings"),
        (
            {"tags": ["a\x00"]},
            "tag 'a\\x00' is not valid: text of at most 200 bytes, without NUL or lone surrogates",
        ),
        (
            {"tenant": 5},
            f"tenant 5 {TENANT}",
        ),
        (
            {"tenant": "\ud800"},
            f"tenant '\\ud800' {TENANT}",
        ),
        (
            {"unique_key": 5},
            f"unique_key 5 {KEY}",
        ),
        (
            {"unique_key": "a\x00"},
            f"unique_key 'a\\x00' {KEY}",
        ),
        ({"unique_key": LONG}, "unique_key has 3000 bytes, and 2000 is the most"),
        (
            {"prority": 1},
            (
                "unknown option 'prority' (did you mean 'priority'?): the options are "
                "connection, delay, expires_at, "
                "priority, queue, run_at, tags, tenant, timeout, unique_for, unique_key, "
                "unique_mode, unique_scope, unique_wait"
            ),
        ),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    noop = PgQueue("postgresql://nobody@nowhere/nothing").task(name="noop")(lambda: None)
    with pytest.raises(ConfigError) as refused:
        noop.using(**options)
    assert str(refused.value) == message


def test_an_option_of_a_task_is_sent_to_where_it_belongs() -> None:
    noop = PgQueue("postgresql://nobody@nowhere/nothing").task(name="noop")(lambda: None)
    with pytest.raises(ConfigError, match=r"'limits': it is for @pgq.task\(limits=…\); here the"):
        noop.using(limits=[])  # type: ignore[call-arg]  # the point


@pytest.mark.parametrize(
    ("given", "meant"),
    [("max_retries", "retry"), ("rate_limit", "limits"), ("lock", "ordered_by"), ("eta", "run_at")],
)
def test_a_task_s_unknown_option_is_told_all_that_a_task_takes(given: str, meant: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PgQueue("postgresql://nobody@nowhere/nothing").task(**{given: 3})(lambda: None)
    said = str(refused.value)
    assert said.startswith(f"unknown option {given!r} (did you mean {meant!r}?): the options are")
    for option in ("batch", "isolation", "limits", "name", "ordered_by", "queue", "retry"):
        assert option in said


def test_an_argument_given_as_an_option_is_sent_into_the_payload(pgq: PgQueue) -> None:
    @pgq.task
    def add(first: int) -> None: ...

    with pytest.raises(ConfigError) as refused:
        pgq.enqueue("add", first=1)  # type: ignore[call-arg]  # the point
    assert str(refused.value) == (
        "'first' is an argument of task 'add', no option: arguments go into the payload, "
        "enqueue('add', {'first': …})"
    )


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "č"])
def test_a_bad_task_name_is_refused(pgq: PgQueue, name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 200 letters, digits and the signs"):
        Task(lambda: None, name=name, sender=pgq, options=None, retry=Retry())  # type: ignore[arg-type]


def test_two_functions_cannot_have_one_name(pgq: PgQueue) -> None:
    @pgq.task(name="same")
    def one() -> None: ...

    with pytest.raises(ConfigError, match=r"two tasks are named 'same': .*one and .*two"):

        @pgq.task(name="same")
        def two() -> None: ...


@pytest.mark.parametrize(
    "tags",
    [
        ["a,b", 'a"b', "a\\b", "{}", "NULL", "null", "", " lead", "ž\U0001f600", "a\nb", '\\"'],
        [],
    ],
)
@pytest.mark.parametrize("many", ["one", "many"])
def test_tags_survive_whatever_signs_they_hold(
    pgq: PgQueue, noop: Task[None], tags: list[str], many: str
) -> None:
    tagged = noop.using(tags=tags)
    job_id = tagged.enqueue().id if many == "one" else tagged.enqueue_many([{}])[0]
    assert pgq.get_job(job_id).tags == tuple(tags)


@pytest.mark.parametrize("many", ["one", "many"])
def test_run_at_in_the_future_is_kept_and_in_the_past_means_now(
    pgq: PgQueue, noop: Task[None], database: str, many: str
) -> None:
    now = Clock(database).at

    def stored(**options: Any) -> tuple[datetime, datetime]:
        here = noop.using(**options)
        job_id = here.enqueue().id if many == "one" else here.enqueue_many([{}])[0]
        job = pgq.get_job(job_id)
        return job.run_at, job.scheduled_at

    later, before = now + timedelta(days=400), now - timedelta(days=400)
    assert stored() == (now, now)
    assert stored(run_at=later) == (later, later)
    assert stored(run_at=before) == (now, before)
    assert stored(delay=90) == (now + timedelta(seconds=90),) * 2
    assert stored(delay=timedelta(hours=1)) == (now + timedelta(hours=1),) * 2


@pytest.mark.parametrize("offset", [timedelta(seconds=3464), timedelta(microseconds=7)])
def test_a_zone_with_an_odd_offset_will_do(
    pgq: PgQueue, noop: Task[None], database: str, offset: timedelta
) -> None:
    later = Clock(database).at + timedelta(days=1)
    odd = later.astimezone(timezone(offset))
    ids = [noop.using(run_at=odd, expires_at=odd).enqueue().id]
    ids += noop.using(run_at=odd, expires_at=odd).enqueue_many([{}])
    for job_id in ids:
        job = pgq.get_job(job_id)
        assert (job.run_at, job.expires_at) == (later, later)


def test_times_are_in_utc_whatever_the_database_s_zone_is(
    pgq: PgQueue, noop: Task[None], database: str
) -> None:
    name = value(database, "select current_database()")
    rows(database, f"alter database {name} set timezone = 'Asia/Tokyo'")
    job = noop.using(run_at=datetime(2030, 1, 1, tzinfo=UTC)).enqueue()
    for one in (job, pgq.get_job(job.id)):
        assert one.run_at.isoformat() == "2030-01-01T00:00:00+00:00"
        assert one.created_at.utcoffset() == timedelta(0)

"""A chore with nothing to do costs the look that shows it; none with something is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import Statement, ask, run
from pgqueue.engine.chores import Holder, Offer, Taken, take_chore
from pgqueue.engine.sweep import sweep
from proving import Clock, rows, value

ME = Holder(1, hold=10.0)
TIMEOUT = 15.0
LOOKED_FOR = ("rescue", "expiry", "windows", "workflows", "partitions")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as own:
        yield own


@pytest.fixture
def quiet(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> psycopg.Connection[Any]:
    """All chores are due, three workers live, and there is nothing to do."""
    clock.move(days=1)
    rows(database, "select pgqueue.make_partitions()")
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, tasks, "
        "heartbeat_at) select id, 'here', 1, '1', '{}', 1, '{}', pgqueue.clock() "
        "from unnest(array[10, 20, 30]) as id",
    )
    return connection


def take(pgq: PgQueue, connection: psycopg.Connection[Any], *names: str) -> Taken:
    offers = [Offer(name, looked_for=True) for name in names]
    return run(connection, take_chore(pgq.sql, offers, ME, TIMEOUT))


def test_one_look_does_all_chores_that_have_nothing_to_do(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    taken = take(pgq, quiet, *LOOKED_FOR)
    assert (taken.name, taken.wait) == (None, 5.0)
    kept = (
        "select name, due_at - pgqueue.clock() = every, taken_by, last_run_at from pgqueue.chores"
    )
    done = rows(database, kept + " where name = any(%s)", [list(LOOKED_FOR)])
    assert sorted(done) == [(name, True, None, clock.at) for name in sorted(LOOKED_FOR)]
    clock.move(seconds=4.999)
    assert take(pgq, quiet, *LOOKED_FOR) == Taken(None, 0.001)


def test_a_chore_that_nobody_may_look_for_is_taken_though_there_may_be_nothing(
    pgq: PgQueue, quiet: psycopg.Connection[Any]
) -> None:
    offers = [Offer("expiry"), Offer("rescue", looked_for=True)]
    assert run(quiet, take_chore(pgq.sql, offers, ME, TIMEOUT)).name == "expiry"
    assert run(quiet, take_chore(pgq.sql, offers, ME, TIMEOUT)).name is None


def test_a_chore_with_nothing_to_do_comes_again_as_soon_as_a_worker_wants_it_to(
    pgq: PgQueue, quiet: psycopg.Connection[Any]
) -> None:
    offers = [Offer("rescue", 0.5, looked_for=True), Offer("expiry", looked_for=True)]
    assert run(quiet, take_chore(pgq.sql, offers, ME, TIMEOUT)) == Taken(None, 0.5)


def test_what_failed_the_last_time_is_no_error_any_more_once_there_is_nothing_to_do(
    pgq: PgQueue, database: str, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, "update pgqueue.chores set last_error = 'no luck'")
    take(pgq, quiet, "windows")
    assert rows(database, "select name from pgqueue.chores where last_error is null") == [
        ("windows",)
    ]


RUNNING = (
    "insert into pgqueue.jobs (task, queue, payload, state, lease, worker_id, started_at, attempt) "
    "values ('t', 'q', '{}', 'running', 7, %s, pgqueue.clock(), 1)"
)
JOB = "insert into pgqueue.jobs (task, queue, payload, expires_at) values ('t', 'q', '{}', %s)"
WINDOW = (
    "with one as (insert into pgqueue.schedules (name, cron, task, next_run_at) "
    "values ('s', '@daily', 't', pgqueue.clock() + interval '1 day') returning id) "
    "insert into pgqueue.windows (schedule_id, window_start, window_end, mode, {columns}) "
    "select id, pgqueue.clock() - interval '1 day', pgqueue.clock(), 'window', {values} from one"
)


@pytest.mark.parametrize("worker_id", [9, 11, 29, 31, 2**63 - 2])
def test_a_job_is_rescued_whose_worker_has_no_row(
    pgq: PgQueue, database: str, quiet: psycopg.Connection[Any], worker_id: int
) -> None:
    rows(database, RUNNING, [worker_id])
    assert take(pgq, quiet, "rescue").name == "rescue"


def test_a_job_of_a_worker_that_lives_needs_no_rescue(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    for worker_id in (10, 20, 30):
        rows(database, RUNNING, [worker_id])
    clock.move(seconds=TIMEOUT)
    assert take(pgq, quiet, "rescue").name is None


def test_a_worker_is_dead_after_its_time_of_silence_whether_it_holds_jobs_or_not(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    clock.move(seconds=TIMEOUT)
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock() where id <> 20")
    assert take(pgq, quiet, "rescue").name is None
    clock.move(seconds=5)
    assert take(pgq, quiet, "rescue").name == "rescue"


def test_an_expired_job_is_seen(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, JOB, [clock.at])
    assert take(pgq, quiet, "expiry").name == "expiry"


def test_a_job_that_expires_later_is_left_alone(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, JOB, [clock.at])
    clock.move(seconds=-1)
    rows(database, "update pgqueue.chores set due_at = pgqueue.clock()")
    assert take(pgq, quiet, "expiry").name is None


def test_a_limited_job_that_came_back_marked_is_seen(
    pgq: PgQueue, database: str, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, JOB, [None])
    rows(
        database,
        "update pgqueue.jobs set state = 'blocked', limits = '{a}', blocked_on = '@cancel', "
        "cancel_requested_at = pgqueue.clock()",
    )
    assert take(pgq, quiet, "expiry").name == "expiry"


@pytest.mark.parametrize(
    ("columns", "values", "taken"),
    [
        ("held", "false", "windows"),
        ("held", "true", None),
        ("outcome, finished_at", "'completed', pgqueue.clock()", None),
    ],
)
def test_a_window_that_is_open_is_looked_after(
    pgq: PgQueue,
    database: str,
    quiet: psycopg.Connection[Any],
    columns: str,
    values: str,
    taken: str | None,
) -> None:
    rows(database, WINDOW.format(columns=columns, values=values))
    assert take(pgq, quiet, "windows").name == taken


def test_what_a_workflow_was_told_is_seen(
    pgq: PgQueue, database: str, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, "insert into pgqueue.workflow_news (workflow_id, job_id) values (1, 1)")
    assert take(pgq, quiet, "workflows").name == "workflows"


@pytest.mark.parametrize("ahead", [-1, 0, 14])
@pytest.mark.parametrize("group", ["completed", "failed"])
def test_a_day_that_is_missing_is_made(
    pgq: PgQueue,
    database: str,
    clock: Clock,
    quiet: psycopg.Connection[Any],
    ahead: int,
    group: str,
) -> None:
    named = "select to_char((pgqueue.clock() at time zone 'UTC')::date + %s, 'YYYYMMDD')"
    day = value(database, named, [ahead])
    rows(database, f"drop table pgqueue.finished_jobs_{group}_{day}")
    assert take(pgq, quiet, "partitions").name == "partitions"
    rows(database, "select pgqueue.make_partitions()")
    clock.move(hours=1)
    assert take(pgq, quiet, "partitions").name is None
    clock.move(days=1)
    assert take(pgq, quiet, "partitions").name == "partitions"


def test_of_several_chores_with_something_to_do_the_first_is_taken_and_the_others_wait(
    pgq: PgQueue, database: str, clock: Clock, quiet: psycopg.Connection[Any]
) -> None:
    rows(database, JOB, [clock.at])
    rows(database, RUNNING, [11])
    rows(
        database,
        "update pgqueue.chores set due_at = pgqueue.clock() - case name when 'rescue' "
        "then interval '2 s' else interval '1 s' end",
    )
    taken = take(pgq, quiet, *LOOKED_FOR)
    assert (taken.name, taken.wait) == ("rescue", -1.0)
    again = take(pgq, quiet, *LOOKED_FOR)
    assert again.name == "expiry"
    # The chores with nothing to do were done by the first look.
    assert again.wait == 10.0


def test_a_sweep_with_nothing_to_delete_is_one_statement(
    pgq: PgQueue, quiet: psycopg.Connection[Any]
) -> None:
    steps = sweep(pgq.sql)
    look = next(steps)
    assert isinstance(look, Statement)
    assert look.text == pgq.sql["look_for_old"]
    with pytest.raises(StopIteration) as ended:
        steps.send(run(quiet, ask(look)))
    assert ended.value.value == 0

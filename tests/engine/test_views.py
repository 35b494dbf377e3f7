"""The views for people who monitor with SQL: what is stuck, dead or unknown."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from endings import end, run_on, worker
from pgqueue import PgQueue
from pgqueue.tasks.task import Task
from proving import Clock, rows

STUCK = "select id, reason, since from pgqueue.stuck_jobs order by id, reason"


@pytest.fixture
def add(pgq: PgQueue, clock: Clock) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int = 1) -> int:
        return a

    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return add


def test_a_running_job_is_stuck_when_its_worker_died(
    database: str, add: Task[int], clock: Clock
) -> None:
    fine, dead, rowless = (add.enqueue().id for _ in range(3))
    run_on(database, fine, worker(database), since=3600)
    run_on(database, dead, worker(database, silent=20))
    run_on(database, rowless, 4711, since=60)

    assert rows(database, STUCK) == [
        (dead, "worker-died", clock.at - timedelta(seconds=5)),
        (rowless, "worker-died", clock.at - timedelta(seconds=45)),
    ]


def test_a_running_job_is_stuck_ten_seconds_after_its_timeout(
    database: str, add: Task[int], clock: Clock
) -> None:
    over, nearly = (add.using(timeout=30).enqueue().id for _ in range(2))
    live = worker(database)
    run_on(database, over, live, since=41)
    run_on(database, nearly, live, since=40)

    assert rows(database, STUCK) == [(over, "over-timeout", clock.at - timedelta(seconds=11))]


def test_a_running_job_is_stuck_ten_seconds_after_its_cancel_mark(
    pgq: PgQueue, database: str, add: Task[int], clock: Clock
) -> None:
    job = add.enqueue()
    live = worker(database)
    run_on(database, job.id, live)
    pgq.cancel(job.id)
    marked = clock.at

    assert rows(database, STUCK) == []
    clock.move(seconds=11)
    assert rows(database, STUCK) == [(job.id, "cancel-ignored", marked)]


def test_a_due_job_is_stuck_after_five_minutes_without_a_worker_for_it(
    pgq: PgQueue, database: str, add: Task[int], clock: Clock
) -> None:
    unheard, unknown, known, later, paused = (
        add.using(queue=queue, delay=delay).enqueue().id
        for queue, delay in (("a", 0), ("b", 0), ("c", 0), ("a", 600), ("d", 0))
    )
    pgq.pause("d")
    due = clock.at
    clock.move(minutes=5)
    assert rows(database, STUCK) == []
    clock.move(seconds=1)
    worker(database, queues=["b"], tasks=["other"])
    worker(database, queues=["c"], tasks=["add"])

    assert rows(database, STUCK) == [(unheard, "no-worker", due), (unknown, "no-worker", due)]
    assert known < later < paused


def test_tasks_that_no_live_worker_of_their_queue_knows_are_counted(
    database: str, add: Task[int], clock: Clock
) -> None:
    add.using(queue="a").enqueue_many({"a": n} for n in range(3))
    add.using(queue="b").enqueue()
    add.using(queue="c", delay=60).enqueue()
    worker(database, queues=["b"], tasks=["add"])
    worker(database, queues=["a"], tasks=["add"], silent=20)

    unknown = "select task, queue, jobs, oldest_run_at from pgqueue.unknown_tasks"
    assert rows(database, unknown) == [("add", "a", 3, clock.at)]
    worker(database, tasks=["add"])
    assert rows(database, unknown) == []


def test_dead_letters_are_the_failed_ones_and_say_why(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    failed, done, cancelled = (add.using(tenant="acme").enqueue().id for _ in range(3))
    end(database, failed, reason="timeout")
    end(database, done, state="completed")
    pgq.cancel(cancelled)

    letters = "select id, task, tenant, attempt, reason, message from pgqueue.dead_letters"
    assert rows(database, letters) == [(failed, "add", "acme", 1, "timeout", "no such host")]
    pgq.retry(failed)
    assert rows(database, letters) == []


def test_figures_of_tasks_cover_the_last_day(
    pgq: PgQueue, database: str, add: Task[int], clock: Clock
) -> None:
    ids = add.enqueue_many({"a": n} for n in range(4))
    end(database, ids[0], state="completed")
    end(database, ids[1], ids[2])

    (row,) = pgq.stats()["tasks"]
    assert (row["task"], row["completed"], row["failed"]) == ("add", 1, 2)
    clock.move(days=1)
    assert pgq.stats()["tasks"] == []


def test_every_column_of_every_view_is_explained_in_its_order(database: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "views.md").read_text(encoding="utf-8")
    explained = {
        section.partition("\n")[0]: re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        for section in page.split("\n## ")[1:]
    }
    columns = (
        "select relname::text, array_agg(attname::text order by attnum) from pg_class "
        "join pg_attribute on attrelid = pg_class.oid and attnum > 0 "
        "where relkind = 'v' and relnamespace = 'pgqueue'::regnamespace group by relname"
    )
    assert explained == dict(rows(database, columns))

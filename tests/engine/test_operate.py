"""Operators delete jobs, cancel them and pause queues; the audit log tells who did what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from endings import end, run_on, worker
from pgqueue import ConfigError, JobFilter, JobNotFound, Operator, PgQueue
from pgqueue.engine.claim import Lane, claim_jobs, claimed_of_rows, new_lease
from pgqueue.engine.delete import Deleted
from pgqueue.engine.operate import this_user
from pgqueue.tasks.task import Task
from proving import rows, states, value

AUDIT = "select who, source, action, target, details from pgqueue.audit_log order by id"


@pytest.fixture
def add(pgq: PgQueue) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int = 1) -> int:
        return a

    return add


def claim(pgq: PgQueue, *queues: str) -> list[int]:
    lanes = [Lane(queue, 5) for queue in queues]
    lease = new_lease()
    statement = claim_jobs(
        pgq.sql, lanes, ["add"], worker_id=1, lease=lease, limit=10, suspects=True
    )
    with pgq.connection() as connection:
        answer = connection.execute(statement.text, statement.params).fetchall()
    return sorted(job.id for job in claimed_of_rows(lease, answer).jobs)


def test_waiting_and_finished_jobs_are_deleted_with_what_hangs_on_them(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    waiting = add.using(unique_key="k", unique_for=3600).enqueue()
    finished, other = add.enqueue(), add.enqueue()
    end(database, finished.id)
    for job_id in (waiting.id, finished.id, other.id):
        rows(
            database,
            "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 1, 'x')",
            [job_id],
        )

    done = pgq.delete(waiting.id, finished.id)

    assert done == Deleted(deleted=(waiting.id, finished.id))
    assert states(database) == {"queued": 1}
    assert rows(database, "select job_id from pgqueue.job_logs") == [(other.id,)]
    assert value(database, "select count(*) from pgqueue.unique_keys") == 0
    with pytest.raises(JobNotFound):
        pgq.get_job(waiting.id)


def test_a_running_job_is_not_deleted_and_an_unknown_one_is_missing(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue()
    run_on(database, job.id, worker(database))

    assert pgq.delete(job.id, 10**15) == Deleted(running=(job.id,), missing=(10**15,))
    assert states(database) == {"running": 1}
    assert rows(database, AUDIT) == []


def test_deleting_twice_is_deleting_once(pgq: PgQueue, database: str, add: Task[int]) -> None:
    ids = add.enqueue_many({"a": n} for n in range(700))

    assert pgq.delete(*ids, *ids).deleted == tuple(ids)
    assert pgq.delete(*ids).missing == tuple(ids)
    assert [row[3] for row in rows(database, AUDIT)] == ["500 jobs", "200 jobs"]


def test_nothing_is_taken_from_a_paused_queue_until_it_is_resumed(
    pgq: PgQueue, add: Task[int]
) -> None:
    job = add.using(queue="email").enqueue()
    other = add.using(queue="other").enqueue()

    assert pgq.pause("email", reason="provider down")
    assert claim(pgq, "email", "other") == [other.id]
    assert pgq.resume("email")
    assert claim(pgq, "email", "other") == [job.id]


def test_a_queue_nobody_has_used_can_be_paused_and_shows_who_and_why(
    pgq: PgQueue, database: str
) -> None:
    assert pgq.pause("later", reason="not yet", by=Operator("eva", "ui"))

    (row,) = pgq.list_queues()
    assert (row["queue"], row["paused"], row["paused_by"]) == ("later", True, "eva")
    assert (row["pause_reason"], row["queued"]) == ("not yet", 0)
    assert row["paused_at"] is not None


def test_pausing_twice_keeps_the_first_reason_and_writes_one_line(
    pgq: PgQueue, database: str
) -> None:
    pgq.pause("email", reason="first", by=Operator("eva"))

    assert not pgq.pause("email", reason="second", by=Operator("bob"))
    assert pgq.list_queues()[0]["pause_reason"] == "first"
    assert pgq.resume("email", by=Operator("bob"))
    assert not pgq.resume("email")
    assert not pgq.resume("never-used")
    assert pgq.list_queues()[0]["paused_by"] is None
    assert rows(database, AUDIT) == [
        ("eva", "code", "pause", "queue email", {"reason": "first"}),
        ("bob", "code", "resume", "queue email", {}),
    ]


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "ä", "a\n", None, 3])
def test_a_name_that_no_queue_has_is_refused(pgq: PgQueue, name: Any) -> None:
    with pytest.raises(ConfigError, match="queue name"):
        pgq.pause(name)
    with pytest.raises(ConfigError, match="queue name"):
        pgq.resume(name)


@pytest.mark.parametrize("reason", ["a\x00b", "x" * 1001])
def test_a_reason_that_cannot_be_stored_is_refused(pgq: PgQueue, reason: str) -> None:
    with pytest.raises(ConfigError, match="reason"):
        pgq.pause("email", reason=reason)


def test_a_cancel_tells_whom_it_ended_and_whom_it_marked(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    waiting, running = add.enqueue(), add.enqueue()
    run_on(database, running.id, worker(database))

    pgq.cancel(waiting.id, running.id, by=Operator("eva", "api"))

    details = {"ids": [waiting.id, running.id]}
    assert rows(database, AUDIT) == [("eva", "api", "cancel", "2 jobs", details)]


def test_an_expiry_is_nobodys_deed(pgq: PgQueue, database: str, add: Task[int]) -> None:
    from pgqueue.db.run import run  # noqa: PLC0415 - the one test that needs it
    from pgqueue.engine.cancel import end_expired  # noqa: PLC0415 - the one test that needs it

    add.enqueue()
    rows(database, "update pgqueue.jobs set expires_at = now() - interval '1 hour'")
    with pgq.connection() as connection:
        assert run(connection, end_expired(pgq.sql)) == 1
    assert rows(database, AUDIT) == []


def test_without_a_name_it_is_the_user_of_the_process(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue()
    pgq.cancel(job.id)

    assert rows(database, AUDIT)[0][:2] == (this_user().who, "code")


def test_jobs_are_listed_newest_first_in_pages(pgq: PgQueue, database: str, add: Task[int]) -> None:
    ids = add.enqueue_many({"a": n} for n in range(7))
    end(database, ids[1], ids[5])

    pages, before = [], None
    while page := pgq.list_jobs(limit=3, before=before):
        pages.append([row["id"] for row in page])
        before = pages[-1][-1]

    assert pages == [ids[:3:-1], ids[3:0:-1], ids[:1]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (JobFilter(), "queued later failed done"),
        (JobFilter(states=("queued",)), "queued later"),
        (JobFilter(status="queued"), "queued"),
        (JobFilter(status="scheduled"), "later"),
        (JobFilter(states=("failed", "completed")), "failed done"),
        (JobFilter(status="completed"), "done"),
        (JobFilter(queue="late"), "later"),
        (JobFilter(tenant="acme"), "queued"),
        (JobFilter(tag="red"), "queued"),
        (JobFilter(reason="timeout"), "failed"),
        (JobFilter(task="none"), ""),
        (JobFilter(task="' or 1=1 --"), ""),
    ],
)
def test_a_filter_finds_what_fits(
    pgq: PgQueue, database: str, add: Task[int], wanted: JobFilter, found: str
) -> None:
    jobs = {
        "queued": add.using(tenant="acme", tags=["red"]).enqueue(),
        "later": add.using(queue="late", delay=60).enqueue(),
        "failed": add.enqueue(),
        "done": add.enqueue(),
    }
    end(database, jobs["failed"].id, reason="timeout")
    end(database, jobs["done"].id, state="completed")

    names = {job.id: name for name, job in jobs.items()}
    listed = [names[row["id"]] for row in pgq.list_jobs(wanted)]
    assert listed == list(reversed(found.split()))


def test_a_job_is_shown_with_its_tries_and_its_log(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue()
    end(database, job.id, reason="timeout")
    pgq.retry(job.id)
    run_on(database, job.id, worker(database))
    rows(
        database,
        "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 2, 'half way')",
        [job.id],
    )
    pgq.cancel(job.id)

    shown = pgq.show_job(job.id)

    events = [(event["event"], event["attempt"]) for event in shown["timeline"]]
    assert ("timeout", 1) in events
    assert events[-3:] == [("created", None), ("started", 2), ("cancel requested", None)]
    assert [line["message"] for line in shown["logs"]] == ["half way"]
    assert shown["status"] == "running"


async def test_async_code_operates_the_same_way(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = await add.aenqueue()
    assert await pgq.apause("email")
    assert await pgq.aresume("email")
    assert [row["id"] for row in await pgq.alist_jobs()] == [job.id]
    assert (await pgq.ashow_job(job.id))["id"] == job.id
    assert [row["queue"] for row in await pgq.alist_queues()] == ["default", "email"]
    assert set(await pgq.astats()) == {"queues", "tasks", "workers", "schedules"}
    assert (await pgq.acancel(job.id)).ended == (job.id,)
    assert (await pgq.adelete(job.id)).deleted == (job.id,)
    assert (await pgq.awhy(job.id))[0].cause == "not-found"
    await asyncio.to_thread(pgq.close)
    await pgq.pools.aclose()

"""Finished jobs come back under their ids: retry, one by one and by filter."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from endings import end, run_on, worker
from pgqueue import (
    ConfigError,
    Job,
    JobFilter,
    Operator,
    PgQueue,
    Retry,
)
from pgqueue.engine.retry_jobs import Retried
from pgqueue.tasks.task import Task
from proving import rows, states, value

AUDIT = "select who, source, action, target, details from pgqueue.audit_log order by id"


@pytest.fixture
def add(pgq: PgQueue) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int, b: int = 2) -> int:
        return a + b

    return add


def test_a_failed_job_comes_back_under_its_id_and_is_due_now(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.using(priority=7, tags=["x"], tenant="acme", timeout=9).enqueue(a=1)
    end(database, job.id)

    assert pgq.retry(job.id) == Retried(retried=(job.id,))

    again = pgq.get_job(job.id)
    assert (again.state, again.attempt, again.max_attempts) == ("queued", 1, 2)
    assert (again.lease, again.worker_id, again.cancel_requested_at) == (None, None, None)
    assert (again.priority, again.tags, again.tenant, again.timeout) == (7, ("x",), "acme", 9)
    assert (again.created_at, again.scheduled_at) == (job.created_at, job.scheduled_at)
    assert value(database, "select run_at <= pgqueue.clock() from pgqueue.jobs")
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0
    assert value(database, "select errors -> 0 ->> 'reason' from pgqueue.jobs") == "exception"


def test_retrying_twice_is_retrying_once(pgq: PgQueue, database: str, add: Task[int]) -> None:
    job = add.enqueue(a=1)
    end(database, job.id)
    pgq.retry(job.id)

    assert pgq.retry(job.id, job.id) == Retried(live=(job.id,))
    assert states(database) == {"queued": 1}
    assert len(rows(database, AUDIT)) == 1


def test_a_retried_job_gets_as_many_tries_as_its_task_gives(pgq: PgQueue, database: str) -> None:
    @pgq.task(name="stubborn", retry=Retry(attempts=4))
    def stubborn() -> None: ...

    job = stubborn.enqueue()
    end(database, job.id)
    pgq.retry(job.id)

    assert pgq.get_job(job.id).max_attempts == 5


def test_a_cancelled_job_comes_back_without_its_mark(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue(a=1)
    pgq.cancel(job.id)

    assert pgq.retry(job.id).retried == (job.id,)
    assert pgq.get_job(job.id).cancel_requested_at is None


def test_a_quarantined_job_comes_back_with_a_clean_slate(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue(a=1)
    rows(database, "update pgqueue.jobs set suspect = true, crashes = 3")
    end(database, job.id, reason="crashed")
    pgq.retry(job.id)

    again = pgq.get_job(job.id)
    assert (again.suspect, again.crashes) == (False, 0)


def test_an_expired_job_comes_back_without_its_expiry_and_others_keep_theirs(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    expired, other = (add.using(expires_at=at).enqueue(a=1) for at in (soon, later))
    end(database, expired.id, other.id, state="cancelled", reason="expired")
    pgq.retry(expired.id, other.id)

    assert pgq.get_job(expired.id).expires_at is None
    assert pgq.get_job(other.id).expires_at == later


def test_a_job_that_waits_for_its_time_runs_now(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.using(delay=3600).enqueue(a=1)

    assert pgq.retry(job.id) == Retried(hurried=(job.id,))
    assert pgq.get_job(job.id).run_at < job.run_at
    assert pgq.get_job(job.id).scheduled_at == job.scheduled_at
    assert [row[2] for row in rows(database, AUDIT)] == ["run-now"]


def test_live_completed_and_unknown_jobs_are_told_apart(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    due, running, completed, failed = add.enqueue_many({"a": n} for n in range(4))
    run_on(database, running, worker(database))
    end(database, completed, state="completed")
    end(database, failed)

    done = pgq.retry(due, running, completed, failed, 10**15)

    assert (done.retried, done.live, done.missing) == ((failed,), (due, running), (10**15,))
    assert done.refused == {completed: "it completed: replay it to run it again"}
    assert states(database) == {"queued": 2, "running": 1, "completed": 1}


def test_a_taken_unique_key_refuses_that_job_and_no_other(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    first = add.using(unique_key="k").enqueue(a=1)
    end(database, first.id)
    holder = add.using(unique_key="k").enqueue(a=1)
    other = add.enqueue(a=1)
    end(database, other.id)

    done = pgq.retry(first.id, other.id)

    assert done.retried == (other.id,)
    assert done.refused == {first.id: f"its unique key is taken by job {holder.id}"}
    assert pgq.get_job(first.id).state == "failed"


def test_of_two_finished_jobs_with_one_key_one_comes_back(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    pair = []
    for _ in range(2):
        pair.append(add.using(unique_key="k").enqueue(a=1).id)
        end(database, pair[-1])

    done = pgq.retry(*pair)

    assert done.retried == (pair[0],)
    assert done.refused == {pair[1]: "its unique key is taken"}
    assert states(database) == {"queued": 1, "failed": 1}


def test_a_key_in_an_open_transaction_holds_up_its_job_alone(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    keyed = add.using(unique_key="k").enqueue(a=1)
    others = add.enqueue_many({"a": n} for n in range(3))
    end(database, keyed.id, *others)
    with psycopg.connect(database) as stranger:
        add.using(unique_key="k", connection=stranger).enqueue(a=1)
        done = pgq.retry(keyed.id, *others)
        stranger.rollback()

    assert done.retried == tuple(others)
    assert done.refused == {keyed.id: "a transaction holds its unique key or schedule: try again"}
    assert pgq.retry(keyed.id).retried == (keyed.id,)


def test_a_filter_retries_what_fits_and_nothing_else(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    @pgq.task(name="other")
    def other() -> None: ...

    wanted = add.using(queue="q", tenant="acme", tags=["red", "big"]).enqueue(a=1).id
    rest = [
        add.using(queue="q", tenant="acme", tags=["blue"]).enqueue(a=1).id,
        add.using(queue="q", tenant="acme").enqueue(a=1).id,
        add.using(queue="q", tenant="zeta", tags=["red"]).enqueue(a=1).id,
        add.using(queue="p", tenant="acme", tags=["red"]).enqueue(a=1).id,
        other.using(queue="q", tenant="acme", tags=["red"]).enqueue().id,
    ]
    timed_out, cancelled, old = (
        add.using(queue="q", tenant="acme", tags=["red"]).enqueue(a=1).id for _ in range(3)
    )
    end(database, wanted, *rest)
    end(database, timed_out, reason="timeout")
    end(database, cancelled, state="cancelled")
    end(database, old, at=datetime.now(UTC) - timedelta(hours=5))
    these = JobFilter(
        states=("failed",), task="add", queue="q", tenant="acme", tag="red", reason="exception",
        since=datetime.now(UTC) - timedelta(hours=1), until=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip

    preview = pgq.preview_retry(these)
    assert (preview.count, [row["id"] for row in preview.sample]) == (1, [wanted])
    assert states(database) == {"failed": 8, "cancelled": 1}
    assert pgq.retry_many(these) == Retried(retried=(wanted,))
    assert states(database) == {"failed": 7, "cancelled": 1, "queued": 1}
    assert pgq.retry_many(these) == Retried()


def test_many_jobs_come_back_in_batches_each_with_its_line_in_the_audit_log(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    ids = add.enqueue_many({"a": n} for n in range(1201))
    end(database, *ids)

    done = pgq.retry_many(JobFilter(task="add"), by=Operator("eva", "api"))

    assert list(done.retried) == ids
    log = rows(database, AUDIT)
    assert [row[:4] for row in log] == [
        ("eva", "api", "retry", f"{count} jobs") for count in (500, 500, 201)
    ]
    assert [job_id for row in log for job_id in row[4]["ids"]] == ids
    assert log[0][4]["filter"] == {"task": "add"}


def test_a_limit_takes_the_oldest_endings(pgq: PgQueue, database: str, add: Task[int]) -> None:
    ids = add.enqueue_many({"a": n} for n in range(4))
    for job_id in reversed(ids):
        end(database, job_id)

    assert pgq.preview_retry(JobFilter(task="add"), limit=2).count == 2
    assert pgq.retry_many(JobFilter(task="add"), limit=2).retried == tuple(ids[2:])


def test_a_filter_for_jobs_that_cannot_be_retried_is_refused(pgq: PgQueue) -> None:
    with pytest.raises(ConfigError, match="completed jobs are not retried by filter"):
        pgq.retry_many(JobFilter(states=("completed",)))
    with pytest.raises(ConfigError, match="retrying jobs are not retried by filter"):
        pgq.preview_retry(JobFilter(status="retrying"))
    assert pgq.retry_many(JobFilter(states=("failed",), status="cancelled")) == Retried()


def test_a_job_that_failed_again_is_another_ending(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue(a=1)
    end(database, job.id)
    assert pgq.retry(job.id).retried
    end(database, job.id)

    assert pgq.retry(job.id).retried == (job.id,)
    assert (pgq.get_job(job.id).attempt, pgq.get_job(job.id).max_attempts) == (2, 3)


async def test_async_code_retries_the_same_way(pgq: PgQueue, database: str, add: Task[int]) -> None:
    first, second, third = await add.aenqueue_many({"a": n} for n in range(3))
    await asyncio.to_thread(end, database, first, second, third)

    assert (await pgq.aretry(first)).retried == (first,)
    assert (await pgq.apreview_retry(JobFilter())).count == 2
    await pgq.areplay(second)
    assert (await pgq.aretry_many(JobFilter())).retried == (third,)
    await pgq.pools.aclose()


@pytest.mark.parametrize("job_id", ["1", 1.0, None, 0, -1, 2**63, True, "x"])
def test_an_id_that_is_none_is_refused(pgq: PgQueue, job_id: Any) -> None:
    for verb in (pgq.retry, pgq.cancel, pgq.delete, pgq.why, pgq.replay, pgq.show_job):
        with pytest.raises(ConfigError, match="is not valid: a whole number from 1"):
            verb(job_id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"states": ("done",)},
        {"status": "late"},
        {"task": 3},
        {"queue": "a\x00b"},
        {"since": datetime(2030, 1, 1)},  # noqa: DTZ001 - what is refused
        {"until": datetime(2030, 1, 1)},  # noqa: DTZ001 - what is refused
    ],
)
def test_a_filter_that_no_job_can_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        JobFilter(**wrong)


@pytest.mark.parametrize("limit", [0, -1, True, 2**64])
def test_a_limit_below_one_is_refused(pgq: PgQueue, limit: int) -> None:
    for verb in (pgq.preview_retry, pgq.retry_many, pgq.list_jobs):
        with pytest.raises(ConfigError, match="limit"):
            verb(JobFilter(), limit=limit)


@pytest.mark.parametrize(("who", "source"), [("eva", "phone"), ("", "cli"), ("a\x00", "cli")])
def test_an_operator_without_name_or_place_is_refused(who: str, source: str) -> None:
    with pytest.raises(ConfigError):
        Operator(who, source)


async def test_a_retried_job_really_runs_again(pgq: PgQueue, database: str) -> None:
    tries: list[int] = []

    @pgq.task(name="second-time-lucky")
    def second_time_lucky(job: Job) -> int:
        tries.append(job.attempt)
        return 10 // (job.attempt - 1)

    job = await second_time_lucky.aenqueue()
    await pgq.worker(burst=True).run()
    assert (await pgq.aget_job(job.id)).state == "failed"

    assert (await pgq.aretry(job.id)).retried == (job.id,)
    await pgq.worker(burst=True).run()

    assert await job.aresult(timeout=5) == 10
    assert tries == [1, 2]
    await pgq.pools.aclose()

"""A batch handler gets many jobs in one call; each of them has its own lease and its own end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from pgqueue import Cancel, Job, PgQueue, Retry, Snooze
from pgqueue.events import JobEnded, JobStarted, LeasesLost
from pgqueue.worker import gathering
from proving import Recorder, rows, states, until, value, workers_started_long_ago


class Item(BaseModel):
    n: int


async def drain(pgq: PgQueue, **options: Any) -> None:
    worker = pgq.worker(burst=True, scheduler=False, **options)
    await asyncio.wait_for(worker.run(), 40)


@asynccontextmanager
async def working(pgq: PgQueue, **options: Any) -> AsyncIterator[Any]:
    worker = pgq.worker(scheduler=False, **options)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop("the test is over")
        await asyncio.wait_for(running, 30)


def results(database: str) -> list[Any]:
    found = rows(database, "select result from pgqueue.finished_jobs order by id")
    return [result for (result,) in found]


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_a_thousand_jobs_take_about_ten_calls_of_a_hundred(
    database: str, pgq: PgQueue, way: str
) -> None:
    calls: list[int] = []

    async def aembed(items: list[Item]) -> list[int]:
        calls.append(len(items))
        return [item.n * 2 for item in items]

    def embed(items: list[Item]) -> list[int]:
        calls.append(len(items))
        return [item.n * 2 for item in items]

    task = pgq.task(name="embed", batch=100)(aembed if way == "async" else embed)
    task.enqueue_many(numbers(1000))
    await drain(pgq, concurrency=1)
    # What was fetched ahead at the end may come late for the last call.
    assert max(calls) == 100
    assert len(calls) <= 12
    assert results(database) == [2 * n for n in range(1000)]


async def test_results_and_failures_are_each_jobs_own(database: str, pgq: PgQueue) -> None:
    @pgq.task(batch=10, retry=Retry(attempts=2, delays=[3600]))
    async def mixed(items: list[Item]) -> list[Any]:
        ends = ["done", ValueError("of this one"), Snooze(60), Cancel("not wanted"), float("nan")]
        return [ends[item.n] for item in items]

    ids = mixed.enqueue_many(numbers(5))
    await drain(pgq)
    shown = [pgq.show_job(job_id) for job_id in ids]
    assert [job["status"] for job in shown] == [
        "completed",
        "retrying",
        "scheduled",
        "cancelled",
        "failed",
    ]
    assert shown[0]["result"] == "done"
    assert [job["attempt"] for job in shown] == [1, 1, 0, 1, 1]
    reasons = [[error["reason"] for error in job["errors"]] for job in shown]
    assert reasons == [[], ["exception"], [], ["cancelled"], ["bad-result"]]
    assert shown[1]["errors"][0]["message"] == "of this one"


async def test_what_a_call_raises_fails_each_by_its_own_rule(database: str, pgq: PgQueue) -> None:
    @pgq.task(batch=10, retry=Retry(attempts=2, delays=[0]))
    def broken(items: list[Item]) -> None:
        raise OSError("away")

    first, second = broken.enqueue_many(numbers(2))
    rows(database, "update pgqueue.jobs set max_attempts = 1 where id = %s", [second])
    await drain(pgq)
    assert [pgq.get_job(job_id).attempt for job_id in (first, second)] == [2, 1]
    assert states(database) == {"failed": 2}


WRONG_COUNT = (
    "a call for 2 jobs returned {}: it returns a list of as many results, in the order of the "
    "jobs, exceptions for those that failed; or None"
)


@pytest.mark.parametrize(
    ("returned", "what"), [([1], "1"), ([1, 2, 3], "3"), ("ab", "str"), ({1: 2, 3: 4}, "dict")]
)
async def test_as_many_results_as_jobs_or_none(pgq: PgQueue, returned: Any, what: str) -> None:
    @pgq.task(batch=10)
    def wrong(items: list[Item]) -> Any:
        return returned

    ids = wrong.enqueue_many(numbers(2))
    await drain(pgq)
    for job_id in ids:
        assert pgq.show_job(job_id)["errors"][0]["message"] == WRONG_COUNT.format(what)


async def test_a_handler_of_jobs_sees_each_with_its_lease(database: str, pgq: PgQueue) -> None:
    @pgq.task(batch=10)
    async def handle(jobs: list[Job], items: list[dict[str, Any]]) -> list[Any]:
        for job in jobs:
            job.log(f"n is {job.payload['n']}")
            async with job.transaction() as connection:
                await connection.execute("insert into effects values (%s)", [job.id])
        pairs = zip(jobs, items, strict=True)
        return [await job.step("kept", item.get, "n") for job, item in pairs]

    rows(database, "create table effects (job_id bigint)")
    ids = handle.enqueue_many(numbers(3))
    await drain(pgq)
    assert results(database) == [0, 1, 2]
    assert rows(database, "select job_id from effects order by 1") == [(one,) for one in ids]
    assert value(database, "select count(*) from pgqueue.job_steps") == 3
    assert value(database, "select count(*) from pgqueue.job_logs where message = 'n is 2'") == 1


async def test_one_invalid_payload_fails_alone(database: str, pgq: PgQueue) -> None:
    @pgq.task(batch=10)
    async def handle(items: list[Item]) -> list[int]:
        return [item.n for item in items]

    good, bad, other = handle.enqueue_many(numbers(3))
    rows(database, 'update pgqueue.jobs set payload = \'{"n": "x"}\' where id = %s', [bad])
    workers_started_long_ago(database)
    await drain(pgq)
    found = [pgq.get_job(job_id).state for job_id in (good, bad, other)]
    assert found == ["completed", "failed", "completed"]


async def test_jobs_that_come_one_by_one_wait_for_each_other(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    calls: list[int] = []

    @pgq.task(batch=5, max_wait=20)
    async def handle(items: list[Item]) -> None:
        calls.append(len(items))

    async with working(pgq, concurrency=2):
        for n in range(5):
            await handle.aenqueue(n=n)
            # Each was claimed before the next one came.
            held = "select count(*) from pgqueue.jobs where state = 'running'"
            await asyncio.to_thread(until, lambda: calls or value(database, held) == n + 1)  # noqa: B023
        await recorder.await_(JobEnded, count=5)
    assert calls == [5]


async def test_a_batch_that_does_not_fill_runs_after_max_wait(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    calls: list[int] = []

    @pgq.task(batch=100, max_wait=0.2)
    async def handle(items: list[Item]) -> None:
        calls.append(len(items))

    handle.enqueue_many(numbers(3))
    async with working(pgq):
        await recorder.await_(JobEnded, count=3)
    assert calls == [3]


async def test_other_jobs_do_not_wait_for_a_batch_and_none_is_hoarded(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    go_on = asyncio.Event()

    @pgq.task(batch=50)
    async def batched(items: list[Item]) -> None:
        await go_on.wait()

    @pgq.task
    async def single(n: int) -> None:
        await go_on.wait()

    batched.enqueue_many(numbers(200))
    single.enqueue_many(numbers(200))
    async with working(pgq, concurrency=4):
        await recorder.await_(JobStarted, count=4 * 50)
        running = rows(
            database,
            "select task, count(*) from pgqueue.jobs where state = 'running' group by 1",
        )
        # Four calls of fifty, and nothing that has to wait for them.
        assert running == [("batched", 200)]
        go_on.set()
        await recorder.await_(JobEnded, count=400)
    assert states(database) == {"completed": 400}


async def test_a_stolen_lease_keeps_one_job_out_and_no_other(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task(batch=10)
    def handle(items: list[Item], jobs: list[Job]) -> list[int]:
        rows(
            database,
            "update pgqueue.jobs set lease = lease + 1, worker_id = 0 where id = %s",
            [jobs[1].id],
        )
        return [item.n for item in items]

    ids = handle.enqueue_many(numbers(3))
    await drain(pgq)
    assert [event.job_ids for event in recorder.of(LeasesLost)] == [(ids[1],)]
    assert states(database) == {"completed": 2, "running": 1}


async def test_a_lost_lease_inside_the_call_hands_the_others_back(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    stolen: list[int] = []

    @pgq.task(batch=10)
    def handle(jobs: list[Job]) -> None:
        if not stolen:
            stolen.append(jobs[1].id)
            rows(
                database,
                "update pgqueue.jobs set lease = lease + 1, worker_id = 0 where id = %s",
                stolen,
            )
        for job in jobs:
            with job.transaction():
                pass

    ids = handle.enqueue_many(numbers(3))
    await drain(pgq)
    assert [event.job_ids for event in recorder.of(LeasesLost)] == [(ids[1],)]
    assert states(database) == {"completed": 2, "running": 1}
    assert pgq.get_job(ids[0]).attempt == 1


async def test_the_shortest_timeout_is_the_calls(database: str, pgq: PgQueue) -> None:
    @pgq.task(batch=10, timeout=60)
    async def slow(items: list[Item]) -> None:
        await asyncio.sleep(3600)

    slow.using(timeout=0.2).enqueue(n=1)
    slow.enqueue(n=2)
    await drain(pgq)
    reasons = rows(database, "select errors -> -1 ->> 'reason' from pgqueue.finished_jobs")
    assert reasons == [("timeout",)] * 2


async def test_a_cancelled_job_ends_with_its_call_and_all_of_them_stop_it(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    go_on, seen = threading.Event(), threading.Event()

    @pgq.task(name="one", batch=2)
    def one_of_two(jobs: list[Job]) -> list[bool]:
        until(lambda: jobs[0].cancelled)
        seen.set()
        go_on.wait(20)
        return [job.cancelled for job in jobs]

    @pgq.task(name="all", batch=2)
    async def both(jobs: list[Job]) -> None:
        await asyncio.sleep(3600)

    ids = one_of_two.enqueue_many([{}, {}])
    others = both.enqueue_many([{}, {}])
    async with working(pgq, concurrency=2):
        await recorder.await_(JobStarted, count=4)
        pgq.cancel(ids[0], others[0])
        await asyncio.to_thread(seen.wait, 20)
        assert value(database, "select count(*) from pgqueue.jobs where state = 'running'") == 4
        go_on.set()
        pgq.cancel(others[1])
        await recorder.await_(JobEnded, count=4)
    assert results(database)[:2] == [True, False]
    assert [str(pgq.get_job(job_id).state) for job_id in others] == ["cancelled"] * 2


async def test_a_stopping_worker_hands_a_whole_call_back(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task(batch=10)
    async def endless(items: list[Item]) -> None:
        await asyncio.sleep(3600)

    endless.enqueue_many(numbers(10))
    async with working(pgq, shutdown_timeout=0.1):
        await recorder.await_(JobStarted, count=10)
    found = rows(database, "select distinct state, attempt from pgqueue.jobs")
    assert found == [("queued", 0)]


async def test_a_stopping_worker_does_not_wait_for_a_batch_to_fill(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task(batch=10, max_wait=60)
    async def handle(items: list[Item]) -> None: ...

    handle.enqueue_many(numbers(3))
    async with working(pgq, shutdown_timeout=20):
        held = "select count(*) from pgqueue.jobs where state = 'running'"
        await asyncio.to_thread(until, lambda: value(database, held) == 3)
    assert states(database) == {"completed": 3}


async def test_a_suspect_runs_alone(database: str, pgq: PgQueue) -> None:
    calls: list[list[int]] = []

    @pgq.task(batch=10)
    async def handle(items: list[Item]) -> None:
        calls.append([item.n for item in items])

    ids = handle.enqueue_many(numbers(4))
    rows(database, "update pgqueue.jobs set suspect = true where id = any(%s)", [ids[:2]])
    await drain(pgq)
    assert sorted(calls) == [[0], [1], [2, 3]]


async def test_a_claim_of_a_batch_whose_reply_is_lost_loses_nothing(
    database: str, pgq: PgQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    take = gathering.claimed_of_rows

    def lose_once(lease: int, found: Any) -> Any:
        if not lost and len(found) > 1:
            lost.append(len(found))
            raise RuntimeError("the reply could not be read")
        return take(lease, found)

    @pgq.task(batch=10)
    async def handle(items: list[Item]) -> None: ...

    monkeypatch.setattr(gathering, "claimed_of_rows", lose_once)
    handle.enqueue_many(numbers(30))
    await drain(pgq, concurrency=1)
    assert lost
    assert states(database) == {"completed": 30}
    assert value(database, "select max(attempt) from pgqueue.finished_jobs") == 1

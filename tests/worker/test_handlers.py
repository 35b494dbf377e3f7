"""What becomes of a job, by what its handler does."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel, field_validator

from pgqueue import Job, PgQueue, Retry
from pgqueue.errors import Cancel, Fail, RetryAfter, Snooze
from pgqueue.events import JobEnded, LeasesLost
from pgqueue.tasks import running
from pgqueue.tasks.task import Task
from proving import Clock, Recorder, rows, value, workers_started_long_ago


async def work(pgq: PgQueue, **options: Any) -> None:
    """Run a worker until nothing due is left."""
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, **options).run(), 30)


def errors_of(database: str, job_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = value(
        database, "select errors from pgqueue.all_jobs where id = %s", [job_id]
    )
    return found


async def test_an_async_handler_s_result_is_kept(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def double(number: int) -> dict[str, int]:
        return {"twice": number * 2}

    job_id = double.enqueue(4).id
    await work(pgq)
    assert pgq.get_job(job_id).state == "completed"
    assert value(database, "select result from pgqueue.finished_jobs") == {"twice": 8}


async def test_a_sync_handler_runs_in_a_thread_and_beside_others(pgq: PgQueue) -> None:
    together = threading.Barrier(3)

    @pgq.task
    def meet() -> str:
        together.wait(10)
        return threading.current_thread().name

    ids = meet.enqueue_many([{}] * 3)
    await work(pgq, concurrency=3)
    assert {pgq.get_job(job_id).state for job_id in ids} == {"completed"}


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its message")

    __repr__ = __str__


RAISED = {
    "unprintable": Unprintable(),
    "value": ValueError("no"),
    "stop-iteration": StopIteration(),
    "exit": SystemExit(3),
    "cancelled": asyncio.CancelledError(),
    "generator-exit": GeneratorExit(),
    "base": BaseException("odd"),
    "group": BaseExceptionGroup("two", [SystemExit(1), ValueError("x")]),
    "timeout": TimeoutError("mine"),
    "nul": ValueError("a\x00b \ud800 \udfff"),
    "huge": ValueError("x" * 100_000),
    "interrupt-in-thread": KeyboardInterrupt(),
}


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_whatever_a_handler_raises_fails_its_job_alone(
    database: str, pgq: PgQueue, kind: str
) -> None:
    ids: dict[str, int] = {}
    for name, error in RAISED.items():
        if kind == "async" and name in {"interrupt-in-thread", "generator-exit"}:
            continue
        ids[name] = _raising(pgq, name, error, kind).enqueue().id

    @pgq.task
    async def fine() -> None: ...

    good = fine.enqueue().id
    await work(pgq, concurrency=2)

    assert pgq.get_job(good).state == "completed"
    for name, job_id in ids.items():
        assert pgq.get_job(job_id).state == "failed", name
        (error,) = errors_of(database, job_id)
        assert (error["reason"], error["attempt"]) == ("exception", 1), name
        assert "traceback" in error


def _raising(pgq: PgQueue, name: str, error: BaseException, kind: str) -> Task[Any]:
    if kind == "async":

        async def fail() -> None:
            raise error

        return pgq.task(name=name)(fail)

    def fail_in_thread() -> None:
        raise error

    return pgq.task(name=name)(fail_in_thread)


async def test_sys_exit_in_a_handler_ends_neither_the_worker_nor_the_process(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def leave() -> None:
        sys.exit("bye")

    job_id = leave.enqueue().id
    await work(pgq)
    assert errors_of(database, job_id)[0]["type"] == "SystemExit"


VERDICTS = [
    (Snooze(30), ("queued", 0, 30.0, [])),
    (Snooze(-5), ("queued", 0, 0.0, [])),
    (RetryAfter(40), ("queued", 1, 40.0, ["retry-after"])),
    (Cancel("enough"), ("cancelled", 1, None, ["cancelled"])),
    (Fail("broken"), ("failed", 1, None, ["fail"])),
]


@pytest.mark.parametrize("how", ["raise", "return"])
async def test_verdicts_speak_by_raise_and_by_return(
    database: str, pgq: PgQueue, clock: Clock, how: str
) -> None:
    ids = []
    for number, (verdict, _) in enumerate(VERDICTS):
        if isinstance(verdict, Snooze) and verdict.seconds < 0:
            continue  # due again at once: it would snooze for ever

        async def speak(verdict: Any = verdict) -> Any:
            if how == "raise":
                raise verdict
            return verdict

        speak.__defaults__ = (verdict,)
        speak.__annotations__ = {}
        task = pgq.task(name=f"v{number}", retry=Retry(attempts=3))(_without_parameters(speak))
        ids.append((task.enqueue().id, VERDICTS[number][1]))
    await work(pgq)
    for job_id, (state, attempt, delay, reasons) in ids:
        job = pgq.get_job(job_id)
        assert (job.state, job.attempt) == (state, attempt)
        assert [error["reason"] for error in errors_of(database, job_id)] == reasons
        if delay is not None:
            assert (job.run_at - clock.at).total_seconds() == delay


def _without_parameters(speak: Any) -> Any:
    async def spoken() -> Any:
        return await speak()

    return spoken


async def test_retry_after_on_the_last_try_fails(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def again() -> None:
        raise RetryAfter(0)

    job_id = again.enqueue().id
    await work(pgq)
    assert pgq.get_job(job_id).state == "failed"
    assert errors_of(database, job_id)[0]["reason"] == "retry-after"


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, "30", None])
async def test_a_wait_that_is_none_fails_the_job_and_stops_nothing(
    database: str, pgq: PgQueue, seconds: Any
) -> None:
    @pgq.task
    async def snooze() -> None:
        raise Snooze(seconds, "odd")

    @pgq.task
    async def fine() -> None: ...

    job_id, good = snooze.enqueue().id, fine.enqueue().id
    await work(pgq)
    assert (pgq.get_job(job_id).state, pgq.get_job(good).state) == ("failed", "completed")


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (Retry(attempts=4, delays=[5, 10]), [5, 10, 10]),
        (Retry(attempts=4, base=2, factor=3, cap=10, jitter=0), [2, 6, 10]),
    ],
)
async def test_retries_come_after_exactly_the_delays_of_the_policy(
    database: str, pgq: PgQueue, clock: Clock, retry: Retry, delays: list[float]
) -> None:
    @pgq.task(retry=retry)
    async def fail() -> None:
        raise ValueError("no")

    job_id = fail.enqueue().id
    seen = []
    for _ in delays:
        await work(pgq)
        seen.append((pgq.get_job(job_id).run_at - clock.at).total_seconds())
        clock.set(pgq.get_job(job_id).run_at)
    await work(pgq)
    assert seen == delays
    job = pgq.get_job(job_id)
    assert (job.state, job.attempt) == ("failed", 4)
    assert [error["attempt"] for error in errors_of(database, job_id)] == [1, 2, 3, 4]


async def test_a_timeout_ends_an_async_handler(database: str, pgq: PgQueue) -> None:
    @pgq.task(timeout=0.05)
    async def hang() -> None:
        await asyncio.Event().wait()

    job_id = hang.enqueue().id
    await work(pgq)
    assert pgq.get_job(job_id).state == "failed"
    error = errors_of(database, job_id)[0]
    assert (error["reason"], error["message"]) == ("timeout", "not done within 0.05 s")


async def test_a_thread_over_its_timeout_is_told_and_its_late_write_rolls_back(
    database: str, pgq: PgQueue
) -> None:
    rows(database, "create table effects (job_id bigint)")
    told = threading.Event()

    @pgq.task(timeout=0.05)
    def hang(job: Job, connection: psycopg.Connection[Any]) -> None:
        connection.execute("insert into effects values (%s)", [job.id])
        while not job.cancelled:
            time.sleep(0.005)
        told.set()

    job_id = hang.enqueue().id
    await work(pgq)
    assert told.wait(5)
    assert errors_of(database, job_id)[0]["reason"] == "timeout"
    assert rows(database, "select * from effects") == []


class Unstorable:
    pass


@pytest.mark.parametrize(
    "result",
    ["a\x00", float("nan"), "\ud800", Unstorable(), "x" * 1_000_001, b"\xff"],
    ids=range(6),
)
async def test_a_result_that_cannot_be_stored_fails_its_job_with_bad_result(
    database: str, pgq: PgQueue, result: Any
) -> None:
    rows(database, "create table effects (x int)")

    @pgq.task(retry=Retry(attempts=3))
    async def give(connection: psycopg.AsyncConnection[Any]) -> Any:
        await connection.execute("insert into effects values (1)")
        return result

    @pgq.task
    async def plain() -> Any:
        return result

    for job_id in (give.enqueue().id, plain.enqueue().id):
        await work(pgq)
        assert pgq.get_job(job_id).state == "failed"
        assert errors_of(database, job_id)[0]["reason"] == "bad-result"
    assert rows(database, "select * from effects") == []


class Odd(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def check(cls, x: int) -> int:
        if x == 1:
            raise KeyError("a validator's own mistake")
        return x


async def test_a_payload_that_no_longer_fits_fails_with_its_problems(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def old(number: int) -> None: ...

    @pgq.task
    async def odd(odd: Odd) -> None: ...

    for task, payload in (("old", '{"number": "many"}'), ("odd", '{"odd": {"x": 1}}')):
        rows(
            database,
            "insert into pgqueue.jobs (task, queue, payload) values (%s, 'default', %s)",
            [task, payload],
        )
    workers_started_long_ago(database)
    await work(pgq)
    found = dict(rows(database, "select task, errors #>> '{0,reason}' from pgqueue.finished_jobs"))
    assert found == {"old": "payload-invalid", "odd": "payload-invalid"}


async def test_an_unknown_task_stays_untouched(database: str, pgq: PgQueue) -> None:
    rows(database, "insert into pgqueue.jobs (task, queue) values ('elsewhere', 'default')")
    before = rows(database, "select * from pgqueue.jobs")

    @pgq.task
    async def fine() -> None: ...

    fine.enqueue()
    await work(pgq)
    assert rows(database, "select * from pgqueue.jobs") == before


async def test_a_connection_that_sat_idle_too_long_is_the_handler_s_fault_and_counts(
    database: str, pgq: PgQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "IDLE_LIMIT_MS", 50)

    @pgq.task
    def dawdle(connection: psycopg.Connection[Any]) -> None:
        time.sleep(0.3)

    job_id = dawdle.enqueue().id
    await work(pgq)
    assert pgq.get_job(job_id).state == "failed"
    assert pgq.get_job(job_id).attempt == 1


async def test_a_broken_connection_is_not_the_handler_s_fault(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    tries: list[int] = []

    @pgq.task
    async def once(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        tries.append(job.attempt)
        if len(tries) == 1:
            rows(database, "select pg_terminate_backend(%s)", [connection.info.backend_pid])
        await connection.execute("select 1")

    job_id = once.enqueue().id
    worker = pgq.worker(scheduler=False)
    running_worker = asyncio.create_task(worker.run())
    await recorder.await_(JobEnded, where=lambda event: event.job_id == job_id)
    worker.stop()
    await running_worker
    assert pgq.get_job(job_id).state == "completed"
    assert tries == [1, 1]


async def test_losing_the_lease_is_told_and_nothing_is_written(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    @pgq.task
    async def robbed(job: Job) -> str:
        rows(database, "delete from pgqueue.jobs where id = %s", [job.id])
        return "late"

    job_id = robbed.enqueue().id
    await work(pgq)
    assert recorder.of(LeasesLost)[0].job_ids == (job_id,)
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0

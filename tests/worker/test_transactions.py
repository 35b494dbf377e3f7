"""A handler's writes and its completion are one: both or neither."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgqueue import Job, PgQueue, Retry
from pgqueue.db.run import Steps
from pgqueue.engine.steps import StepBook
from pgqueue.errors import LeaseLost
from pgqueue.events import LeasesLost
from pgqueue.tasks.running import Keeping, RunningJob, Ways
from pgqueue.tasks.task import Task
from pgqueue.worker import endings
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.results import json_of
from proving import Recorder, rows, value

INSERT = "insert into effects values (%s)"


@pytest.fixture(autouse=True)
def effects(database: str) -> None:
    rows(database, "create table effects (job_id bigint)")


async def work(pgq: PgQueue) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)


def written(database: str) -> list[int]:
    return [job_id for (job_id,) in rows(database, "select job_id from effects")]


def steal(database: str, job_id: int) -> None:
    """As rescue and another worker's claim do it."""
    query = "update pgqueue.jobs set lease = lease + 1, worker_id = 0 where id = %s"
    rows(database, query, [job_id])


Between = Callable[[int], Any]


def _both(pgq: PgQueue, between: Between, **options: Any) -> dict[str, Task[Any]]:
    """Tasks that write an effect in each of the four ways, and call `between` inside."""

    @pgq.task(**options)
    async def with_async(job: Job, connection: psycopg.AsyncConnection[Any]) -> str:
        await connection.execute(INSERT, [job.id])
        between(job.id)
        return "done"

    @pgq.task(**options)
    def with_sync(job: Job, connection: psycopg.Connection[Any]) -> str:
        connection.execute(INSERT, [job.id])
        between(job.id)
        return "done"

    @pgq.task(**options)
    async def part_async(job: Job) -> str:
        async with job.transaction() as connection:
            await connection.execute(INSERT, [job.id])
            between(job.id)
        return "done"

    @pgq.task(**options)
    def part_sync(job: Job) -> str:
        with job.transaction() as connection:
            connection.execute(INSERT, [job.id])
            between(job.id)
        return "done"

    tasks = (with_async, with_sync, part_async, part_sync)
    return {task.name: task for task in tasks}


WAYS = ["with-async", "with-sync", "part-async", "part-sync"]


async def test_writes_and_completion_are_both_there(database: str, pgq: PgQueue) -> None:
    ids = [task.enqueue().id for task in _both(pgq, lambda _: None).values()]
    await work(pgq)
    assert sorted(written(database)) == ids
    found = rows(database, "select state, result from pgqueue.finished_jobs")
    assert found == [("completed", "done")] * 4


@pytest.mark.parametrize("way", WAYS)
async def test_when_the_lease_was_lost_both_roll_back(
    database: str, pgq: PgQueue, recorder: Recorder, way: str
) -> None:
    job_id = _both(pgq, lambda job_id: steal(database, job_id))[way].enqueue().id
    await work(pgq)
    assert written(database) == []
    assert recorder.of(LeasesLost)[0].job_ids == (job_id,)
    assert value(database, "select state from pgqueue.jobs") == "running", "the thief's try goes on"
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_failure_rolls_the_writes_back(database: str, pgq: PgQueue, way: str) -> None:
    def fail(_: int) -> None:
        raise ValueError("after the write")

    job_id = _both(pgq, fail)[way].enqueue().id
    await work(pgq)
    assert written(database) == []
    assert pgq.get_job(job_id).state == "failed"


async def test_one_effect_per_job_however_often_its_first_tries_failed(
    database: str, pgq: PgQueue
) -> None:
    tries: dict[int, int] = {}

    def fail_twice(job_id: int) -> None:
        tries[job_id] = tries.get(job_id, 0) + 1
        if tries[job_id] < 3:
            raise ValueError("again")

    tasks = _both(pgq, fail_twice, retry=Retry(attempts=3, delays=[0]))
    ids = [task.enqueue().id for task in tasks.values()]
    await work(pgq)
    assert sorted(written(database)) == ids
    assert set(tries.values()) == {3}


ENDINGS = ["commit", "rollback", "commit; begin", "rollback and chain"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_handler_that_ended_our_transaction_fails_with_what_to_do(
    database: str, pgq: PgQueue, ending: str, kind: str
) -> None:
    @pgq.task(name="async")
    async def ends_async(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(ending)

    @pgq.task(name="sync")
    def ends_sync(connection: psycopg.Connection[Any]) -> None:
        connection.execute(ending)

    job_id = pgq.enqueue(kind).id
    await work(pgq)
    ((error,),) = rows(database, "select errors -> 0 from pgqueue.finished_jobs")
    assert error["type"] == "TransactionEnded"
    assert error["message"] == (
        f"the handler of job {job_id} ended the transaction it was given: "
        "leave commit and rollback to pgqueue, or use job.transaction()"
    )
    # The pool's connections are fit for the next one.
    open_ones = "select count(*) from pg_stat_activity where state ~ 'in transaction'"
    assert value(database, open_ones) == 0


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_handler_that_closed_its_connection_fails_instead_of_coming_again_for_ever(
    database: str, pgq: PgQueue, kind: str
) -> None:
    @pgq.task(name="async")
    async def closes_async(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.close()

    @pgq.task(name="sync")
    def closes_sync(connection: psycopg.Connection[Any]) -> None:
        connection.close()

    pgq.enqueue(kind)
    await work(pgq)
    ((error,),) = rows(database, "select errors -> 0 from pgqueue.finished_jobs")
    assert error["type"] == "TransactionEnded"


async def test_a_handler_that_breaks_every_connection_is_charged_for_it_in_the_end(
    database: str, pgq: PgQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "DATABASE_AWAY_WAIT", 0.0)
    tries: list[int] = []

    @pgq.task
    def crashes_the_server(job: Job, connection: psycopg.Connection[Any]) -> None:
        tries.append(job.attempt)
        connection.execute("select pg_terminate_backend(pg_backend_pid())")

    crashes_the_server.enqueue()
    await work(pgq)
    ((state, reason, attempt),) = rows(
        database, "select state, errors -> -1 ->> 'reason', attempt from pgqueue.finished_jobs"
    )
    assert (state, reason, attempt) == ("failed", "connection-lost", 1)
    assert tries == [1] * (endings.LOSSES_FORGIVEN + 1)


LEFT_BEHIND = (
    "set statement_timeout = '7s'; set search_path = nowhere; "
    "create temp table left_behind (n int); select pg_advisory_lock(77); listen left_behind"
)
FOUND = (
    "select current_setting('statement_timeout'), current_setting('search_path'), "
    "to_regclass('pg_temp.left_behind') is null, pg_backend_pid(), "
    "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), "
    "(select count(*) from pg_listening_channels())"
)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_what_a_handler_leaves_in_its_session_does_not_reach_the_next_job(
    database: str, pgq: PgQueue, kind: str
) -> None:
    found: list[Any] = []

    @pgq.task(name="async")
    async def async_look(connection: psycopg.AsyncConnection[Any]) -> None:
        found.append((connection.row_factory, await (await connection.execute(FOUND)).fetchone()))
        await connection.execute(LEFT_BEHIND)
        connection.row_factory = dict_row  # type: ignore[assignment]  # as apps do

    @pgq.task(name="sync")
    def sync_look(connection: psycopg.Connection[Any]) -> None:
        found.append((connection.row_factory, connection.execute(FOUND).fetchone()))
        connection.execute(LEFT_BEHIND)
        connection.row_factory = dict_row  # type: ignore[assignment]  # as apps do

    for _ in range(2):
        pgq.enqueue(kind)
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, concurrency=1).run(), 30)
    done = rows(database, "select state, errors from pgqueue.finished_jobs")
    assert done == [("completed", [])] * 2
    assert found[0] == found[1], "the same backend, as new"


async def test_a_handler_may_use_savepoints(database: str, pgq: PgQueue) -> None:
    @pgq.task
    async def careful(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with connection.transaction():
                await connection.execute("select from nowhere")
        await connection.execute(INSERT, [job.id])

    job_id = careful.enqueue().id
    await work(pgq)
    assert written(database) == [job_id]


async def test_jobs_that_a_handler_enqueues_in_its_transaction_come_with_its_completion(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def child() -> None: ...

    @pgq.task(retry=Retry(attempts=2, delays=[0]))
    async def parent(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        await child.using(connection=connection).aenqueue()
        if job.attempt == 1:
            raise ValueError("the first child goes with it")

    parent.enqueue()
    await work(pgq)
    done = rows(database, "select task, count(*) from pgqueue.finished_jobs group by 1 order by 1")
    assert done == [("child", 1), ("parent", 1)]


async def test_a_missing_partition_costs_a_transactional_handler_no_try(
    database: str, pgq: PgQueue
) -> None:
    names = rows(
        database,
        "select oid::regclass::text from pg_class where relispartition and relkind = 'r' "
        "and relname like 'finished_jobs_%'",
    )
    tries: list[int] = []

    @pgq.task
    async def at_midnight(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        tries.append(job.attempt)
        if len(tries) == 1:
            for (name,) in names:
                rows(database, f"drop table if exists {name}")
        await connection.execute(INSERT, [job.id])

    @pgq.task
    async def later() -> None: ...

    job_id = at_midnight.enqueue().id
    await work(pgq)  # ends while the job waits its second
    later.using(delay=1.2).enqueue()
    worker = pgq.worker(scheduler=False)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while len(rows(database, "select id from pgqueue.finished_jobs")) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    worker.stop()
    await running
    assert tries == [1, 1]
    assert written(database) == [job_id]


async def test_every_slot_has_a_connection_though_the_app_used_its_pool_before(
    database: str, pgq: PgQueue
) -> None:
    pgq.list_schedules()  # opens the pool at its first size
    together = threading.Barrier(14)

    @pgq.task
    def meet(connection: psycopg.Connection[Any]) -> None:
        together.wait(10)

    meet.enqueue_many([{}] * 14)
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, concurrency=14).run(), 30)
    assert rows(database, "select state, count(*) from pgqueue.all_jobs group by 1") == [
        ("completed", 14)
    ]


def test_a_handler_that_was_told_to_stop_commits_nothing_although_its_lease_still_holds(
    database: str, pgq: PgQueue
) -> None:
    """The worker writes how the try ended a moment after the telling; a quick thread is first."""
    rows(database, "create table late (n int)")

    def held(*_: Any) -> Steps[bool]:
        yield from ()
        return True

    keeping = Keeping(StepBook(pgq.sql), json_of)
    running = RunningJob(1, 7, Ways(pgq.pools, held, Notepad(), keeping, lambda _: True))
    with running.transaction() as connection:
        connection.execute("insert into late values (1)")
    running.stop()
    with pytest.raises(LeaseLost), running.transaction() as connection:
        connection.execute("insert into late values (2)")
    assert rows(database, "select n from late") == [(1,)]


async def test_handlers_that_hold_two_connections_each_can_all_enqueue_on_a_third(
    database: str, pgq: PgQueue
) -> None:
    """Its own transaction, one of a step inside, and there somebody enqueues elsewhere."""
    inside = asyncio.Barrier(6)

    @pgq.task
    async def after() -> None: ...

    @pgq.task
    async def greedy(job: Job, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(INSERT, [job.id])
        async with job.transaction() as beside:
            await beside.execute("select 1")
            await inside.wait()
            await after.aenqueue()

    greedy.enqueue_many([{}] * 6)
    worker = pgq.worker(burst=True, scheduler=False, concurrency=6)
    await asyncio.wait_for(worker.run(), 20)
    ended = rows(database, "select task, state from pgqueue.finished_jobs")
    assert sorted(ended) == [("after", "completed")] * 6 + [("greedy", "completed")] * 6

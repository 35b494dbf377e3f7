"""No job is lost or stuck: not by cut connections, lost replies, poison or missing partitions."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest

from pgqueue import Job, PgQueue
from pgqueue.db.run import run
from pgqueue.engine.rescue import rescue_jobs
from pgqueue.events import DutyFailed, JobStarted, StraysHandedBack
from pgqueue.job import Ended, Requeued, State
from pgqueue.worker import results
from pgqueue.worker.exchange import Exchange
from pgqueue.worker.link import Link
from pgqueue.worker.strays import Strays
from proving import Recorder, rows, states, value


async def work(pgq: PgQueue, **options: Any) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, **options).run(), 60)


async def test_connections_cut_at_random_moments_lose_no_job(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    """Also with the reply to a claim on its way: else those jobs stay running for ever."""
    rand = random.Random(1)  # noqa: S311 - repeatable

    @pgq.task
    async def noop() -> None: ...

    noop.enqueue_many([{}] * 2000)

    async def cut() -> int:
        cuts = 0
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            while True:
                # A worker that cannot start says so and leaves; this is about one that works.
                cursor = await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where exists (select from pgqueue.workers) "
                    "and pid <> pg_backend_pid() and query ~ 'claim|jobs' and datname = "
                    "current_database() and state <> 'idle'"
                )
                cuts += cursor.rowcount
                if cuts > 15:
                    return cuts
                await asyncio.sleep(rand.uniform(0, 0.02))

    cutting = asyncio.create_task(cut())
    await work(pgq, concurrency=20)
    cutting.cancel()
    await asyncio.gather(cutting, return_exceptions=True)
    assert states(database) == {"completed": 2000}


@pytest.fixture
def held(database: str) -> list[int]:
    found = rows(
        database,
        "insert into pgqueue.jobs (task, queue, state, lease, worker_id, started_at, attempt) "
        "select 'noop', 'default', 'running', 7, 1, now(), 1 from generate_series(1, 33) "
        "returning id",
    )
    return [job_id for (job_id,) in found]


POISON = {
    "nul-in-json": Ended(0, 7, State.COMPLETED, '"\\u0000"'),
    "surrogate": Ended(0, 7, State.COMPLETED, '"\\ud800"'),
    "nan": Ended(0, 7, State.COMPLETED, "NaN"),
    "not-json": Ended(0, 7, State.COMPLETED, "{"),
    "nul-in-text": Ended(0, 7, State.COMPLETED, '"\x00"'),
    "error-not-json": Ended(0, 7, State.FAILED, error="{"),
    "wait": Requeued(0, 7, delay=1e300),
    "deep": Ended(0, 7, State.COMPLETED, "[" * 100_000 + "]" * 100_000),
    "check": Requeued(0, 7, uncounted=-(2**31)),
}


@pytest.mark.parametrize("name", list(POISON))
async def test_one_ending_that_postgres_refuses_fails_alone(
    database: str, pgq: PgQueue, held: list[int], name: str
) -> None:
    poison = POISON[name]
    place = 17
    outcomes: list[Any] = [Ended(job_id, 7, State.COMPLETED) for job_id in held]
    outcomes[place] = poison._replace(job_id=held[place])
    link = Link("test", lambda: database)
    exchange = Exchange(pgq.sql, link, {})
    written = await exchange.write(outcomes, ())
    await link.close()
    assert written.applied == frozenset(held)
    assert states(database) == {"completed": 32, "failed": 1}
    ((job_id, reason),) = rows(
        database,
        "select id, errors #>> '{0,reason}' from pgqueue.finished_jobs where state = 'failed'",
    )
    assert (job_id, reason) == (held[place], "bad-result")


async def test_a_result_that_slipped_past_our_checks_fails_its_job_and_the_rest_completes(
    database: str, pgq: PgQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(value: Any, *, limit: int | None = None) -> str:
        return '"\\u0000"' if value == 13 else str(value)

    monkeypatch.setattr(results, "storable_json", careless)

    @pgq.task
    async def give(number: int, job: Job) -> int:
        job.log(f"gives {number}")
        return number

    give.enqueue_many({"number": number} for number in range(50))
    await work(pgq)
    assert states(database) == {"completed": 49, "failed": 1}
    assert value(database, "select count(*) from pgqueue.job_logs") == 50


async def test_without_a_partition_for_today_the_worker_makes_it_and_goes_on(
    database: str, pgq: PgQueue
) -> None:
    names = rows(
        database,
        "select oid::regclass::text from pg_class where relispartition and relkind = 'r' "
        "and relname like 'finished_jobs_%'",
    )

    @pgq.task
    def drop() -> None:
        for (name,) in names:
            rows(database, f"drop table if exists {name}")

    drop.enqueue()
    await work(pgq)
    assert states(database) == {"completed": 1}


async def test_a_worker_starts_although_partitions_cannot_be_made_now(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    """Another's DDL or ANALYZE holds the table for longer than the 100 ms that we wait."""

    @pgq.task
    async def noop() -> None: ...

    noop.enqueue()
    day = value(database, "select to_char(now() + interval '9 days', 'YYYYMMDD')")
    rows(database, f"drop table pgqueue.finished_jobs_completed_{day}")
    with psycopg.connect(database) as other:
        other.execute("lock table pgqueue.finished_jobs_completed in share update exclusive mode")
        await work(pgq)
    assert states(database) == {"completed": 1}
    assert recorder.of(DutyFailed)[0].duty == "partitions"


async def test_what_the_worker_does_not_know_of_is_handed_back_without_costing_a_try(
    database: str, pgq: PgQueue, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Strays.turn

    async def slowly(strays: Strays) -> float | None:
        """Later than the burst has found that nothing is left to claim."""
        await asyncio.sleep(1.0)
        return await turn(strays)

    monkeypatch.setattr(Strays, "turn", slowly)

    @pgq.task
    async def noop() -> None: ...

    noop.enqueue_many([{}] * 5)

    @pgq.task
    async def orphan(job: Job) -> None:
        """Stand for a claim of this worker whose reply was lost."""
        rows(
            database,
            "update pgqueue.jobs set state = 'running', lease = 5, worker_id = %s, attempt = 1, "
            "started_at = now() where state = 'queued' and task = 'noop'",
            [job.worker_id],
        )
        worker._claims.note_lost_reply()

    orphan.using(priority=9).enqueue()
    worker = pgq.worker(burst=True, scheduler=False, concurrency=1)
    await asyncio.wait_for(worker.run(), 30)
    assert sum(len(event.job_ids) for event in recorder.of(StraysHandedBack)) > 0
    assert states(database) == {"completed": 6}
    assert value(database, "select max(attempt) from pgqueue.finished_jobs") == 1


async def test_a_job_that_comes_back_while_its_old_try_winds_up_is_run_again(
    database: str, pgq: PgQueue, recorder: Recorder
) -> None:
    """Fenced, rescued, and claimed again by the same worker before its old handler has ended."""
    let_go = asyncio.Event()
    tries: list[int] = []

    @pgq.task
    async def stubborn(job: Job) -> None:
        tries.append(job.attempt)
        if len(tries) > 1:
            let_go.set()
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await let_go.wait()
            raise

    job_id = stubborn.enqueue().id
    worker = pgq.worker(scheduler=False)
    running = asyncio.create_task(worker.run())
    await recorder.await_(JobStarted)
    worker._claims.hold_off()
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null where id = %s",
        [job_id],
    )
    worker._claims.resume()
    async with asyncio.timeout(10):
        while states(database) != {"completed": 1}:  # noqa: ASYNC110 - the database says when
            await asyncio.sleep(0.02)
    worker.stop()
    await asyncio.wait_for(running, 20)
    assert tries == [1, 2]


RESCUE = """
insert into pgqueue.jobs
  (id, task, queue, state, lease, worker_id, started_at, attempt, max_attempts)
values
  (901, 'noop', 'default', 'running', 1, 77, now() - interval '60 s', 1, 1),
  (902, 'noop', 'default', 'running', 1, 77, now() - interval '60 s', 1, 1),
  (903, 'noop', 'default', 'running', 1, 77, now() - interval '20 s', 1, 1),
  (904, 'noop', 'default', 'running', 1, 78, now(), 1, 1),
  (905, 'noop', 'default', 'running', 1, 79, now() - interval '60 s', 3, 3)
"""


def test_rescue_charges_only_what_may_have_started_and_never_eats_the_last_try(
    database: str, pgq: PgQueue
) -> None:
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, heartbeat_at, "
        "started_jobs) values (77, 'h', 1, '1', '{}', 2, now() - interval '30 s', '{901}'), "
        "(78, 'h', 1, '1', '{}', 2, now() - interval '1 s', '{}')",
    )
    rows(database, RESCUE)
    # The server of the tests may have started a moment ago, and then rescue holds off.
    find = pgq.sql["find_dead_workers"]
    text = find.replace("pg_postmaster_start_time()", "'epoch'::timestamptz")
    with psycopg.connect(database, autocommit=True) as connection:
        run(connection, rescue_jobs({**pgq.sql, "find_dead_workers": text}, 15.0))
    found = rows(
        database,
        "select id, state, attempt, max_attempts, errors #>> '{0,reason}' from pgqueue.jobs "
        "order by 1",
    )
    assert found == [
        (901, "queued", 1, 2, "worker-died"),  # was running
        (902, "queued", 0, 1, None),  # waited in the buffer
        (903, "queued", 1, 2, "worker-died"),  # claimed after the last beat: may have started
        (904, "running", 1, 1, None),  # its worker lives
        (905, "queued", 3, 4, "worker-died"),  # its worker left no row
    ]
    assert rows(database, "select id from pgqueue.workers") == [(78,)]


def test_rescue_holds_off_right_after_a_server_start(database: str, pgq: PgQueue) -> None:
    rows(database, RESCUE)
    started = "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8"
    with psycopg.connect(database, autocommit=True) as connection:
        up: float = connection.execute(started).fetchone()[0]  # type: ignore[index]
        query = pgq.sql["find_dead_workers"]
        assert connection.execute(query, {"timeout": up + 60}).fetchall() == []
        assert connection.execute(query, {"timeout": up / 2}).fetchall() != []

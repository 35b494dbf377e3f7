"""What a worker does beside its jobs: rescue in time, and not too early; statistics; patience."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pgqueue import PgQueue
from pgqueue.events import JobRequeued, JobsRescued, WorkerStats
from pgqueue.observe.log import line_of
from pgqueue.worker.heart import Heart
from pgqueue.worker.rollout import Rollout
from proving import (
    Clock,
    Recorder,
    rows,
    states,
    until,
    value,
    workers_started_long_ago,
)


class Body:
    """A worker that is alive and has nothing to say."""

    def worker_id(self) -> int:
        return 1

    def started_ids(self) -> list[int]:
        return []

    def loop_silence(self) -> float:
        return 0.0

    def is_stuck(self) -> bool:
        return False

    def proven_until(self, moment: float) -> None: ...

    def fence(self, _: float) -> None: ...
    def unfence(self) -> None: ...
    def declared_dead(self) -> None: ...


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the heart, moved by hand: its one element."""
    moved = [1000.0]
    monkeypatch.setattr("pgqueue.worker.heart.time.monotonic", lambda: moved[0])
    return moved


def test_after_a_gap_in_its_own_beats_a_worker_is_unsteady_for_a_while(
    pgq: PgQueue, database: str, hands: list[float]
) -> None:
    heart = Heart(Body(), pgq.sql, lambda: database, interval=3.0, timeout=15.0)
    for _ in range(3):
        hands[0] += 3.0
        heart.beat_once()
    assert heart.steadiness() == float("inf")
    # A beat that is late once is a delay.
    hands[0] += 6.0
    heart.beat_once()
    assert heart.steadiness() == float("inf")
    hands[0] += 40.0
    assert heart.steadiness() == 0.0
    heart.beat_once()
    assert heart.steadiness() == 0.0
    hands[0] += 3.0
    heart.beat_once()
    assert heart.steadiness() == 3.0
    assert heart._connection is not None
    heart._connection.close()


async def run_until_idle(pgq: PgQueue, **options: Any) -> None:
    await pgq.worker(burst=True, **options).run()


async def test_the_jobs_of_a_dead_worker_come_back_and_are_done(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_TIMEOUT", "2")
    pgq = PgQueue(database)
    done = asyncio.Event()

    @pgq.task
    async def work() -> None:
        done.set()

    job = work.enqueue()
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, heartbeat_at) "
        "values (999, 'gone', 1, '0', '{}', 1, now())",
    )
    rows(
        database,
        "update pgqueue.jobs set state = 'running', lease = 1, worker_id = 999, "
        "started_at = now(), attempt = 1 where id = %s",
        [job.id],
    )
    # A taker of the chore that died in the middle: its hold has to end first.
    rows(
        database,
        "update pgqueue.chores set taken_by = 999, taken_until = now() + interval '2 seconds'",
    )
    began = time.monotonic()
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(done.wait(), 20)
    took = time.monotonic() - began
    worker.stop()
    await running
    pgq.close()
    assert recorder.of(JobsRescued)[0].job_ids == (job.id,)
    assert took < 2 + 5
    assert states(database) == {"completed": 1}


async def test_a_worker_that_could_not_reach_the_database_rescues_nobody_at_first(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "steadiness", lambda _: 0.0)
    pgq = PgQueue(database)
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, heartbeat_at) "
        "values (999, 'gone', 1, '0', '{}', 1, '2000-01-01')",
    )
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    # The others of this worker's chores are done meanwhile.
    never = "select count(*) from pgqueue.chores where last_run_at is null"
    await asyncio.to_thread(until, lambda: value(database, never) == 1)
    worker.stop()
    await running
    pgq.close()
    assert recorder.of(JobsRescued) == []
    last = "select last_run_at from pgqueue.chores where name = 'rescue'"
    assert value(database, last) is None
    assert value(database, "select count(*) from pgqueue.workers where id = 999") == 1


async def test_waiting_jobs_expire_while_a_worker_runs(database: str) -> None:
    pgq = PgQueue(database)

    @pgq.task(queue="elsewhere")
    def late() -> None: ...

    late.using(delay=3600).enqueue()
    rows(database, "update pgqueue.jobs set expires_at = now() - interval '1 second'")
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(until, lambda: states(database) == {"cancelled": 1})
    worker.stop()
    await running
    pgq.close()


async def test_every_interval_a_worker_tells_what_it_did_and_what_waits(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_STATS_INTERVAL", "0.2")
    pgq = PgQueue(database)

    @pgq.task
    async def work() -> None: ...

    work.enqueue_many([{}] * 3)
    work.using(delay=3600).enqueue_many([{}] * 2)
    pgq.put_schedule("nightly", cron="0 3 * * *", task=work)
    worker = pgq.worker()
    running = asyncio.create_task(worker.run())
    told = await recorder.await_(WorkerStats, count=2)
    worker.stop()
    await running
    pgq.close()
    assert sum(event.completed for event in recorder.of(WorkerStats)) == 3
    last = told[-1]
    assert (last.queued, last.queued_is_exact, last.schedules) == (2, True, 1)
    assert last.next_runs[0].startswith("nightly at 20")
    assert last.next_runs[0].endswith("T03:00:00Z")
    assert "2 queued, 1 schedules" in (line_of(last) or ("", ""))[1]


async def test_an_interval_of_0_tells_nothing(
    database: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_STATS_INTERVAL", "0")
    pgq = PgQueue(database)
    worker = pgq.worker(burst=True)
    await worker.run()
    assert "statistics" not in {duty.name for duty in worker._duties()}
    assert recorder.of(WorkerStats) == []
    pgq.close()


async def test_a_payload_that_does_not_validate_waits_while_a_new_version_may_be_on_its_way(
    database: str, recorder: Recorder
) -> None:
    pgq = PgQueue(database)

    @pgq.task
    async def resize(width: int) -> None: ...

    resize.enqueue(width=1)
    rows(database, """update pgqueue.jobs set payload = '{"breadth": 2}'""")
    await run_until_idle(pgq)
    pgq.close()
    ((state, attempt, reason, waits),) = rows(
        database,
        "select state, attempt, errors -> 0 ->> 'reason', run_at > now() + interval '30 s' "
        "from pgqueue.jobs",
    )
    assert (state, attempt, reason, waits) == ("queued", 0, "payload-invalid", True)
    assert recorder.of(JobRequeued)[0].delay == 60.0


async def test_it_fails_when_no_worker_has_started_for_a_quarter_of_an_hour(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgq = PgQueue(database)

    @pgq.task
    async def resize(width: int) -> None: ...

    resize.enqueue(width=1)
    rows(database, """update pgqueue.jobs set payload = '{"breadth": 2}'""")
    workers_started_long_ago(database)
    await run_until_idle(pgq)
    pgq.close()
    assert rows(database, "select state, errors -> 0 ->> 'reason' from pgqueue.finished_jobs") == [
        ("failed", "payload-invalid")
    ]


async def test_whether_a_new_version_is_on_its_way_is_told_by_the_newest_start(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    rows(
        database,
        "insert into pgqueue.workers (host, pid, version, queues, concurrency) "
        "values ('here', 1, '0', '{}', 1)",
    )
    clock.move(minutes=14)
    assert await Rollout(pgq.sql, pgq.pools).is_on()
    clock.move(minutes=2)
    assert not await Rollout(pgq.sql, pgq.pools).is_on()
    await pgq.pools.aclose()

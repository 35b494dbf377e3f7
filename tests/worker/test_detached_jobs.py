"""What only a running handler may ask of its Job, asked by somebody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from step_tasks import keep_job

from pgqueue import Job, JobDetached, PgQueue
from pgqueue.errors import PgQueueError
from proving import value

ASKED: dict[str, Callable[[Job], Any]] = {
    "cancelled": lambda job: job.cancelled,
    "log": lambda job: job.log("late"),
    "progress": lambda job: job.progress(50),
    "sleep": lambda job: job.sleep(1),
    "step": lambda job: job.step("late", _never),
    "transaction": lambda job: job.transaction(),
    "wait_for": lambda job: job.wait_for("paid", 1),
}


def _never() -> None:
    raise AssertionError("a step of no running job was taken")


async def work(pgq: PgQueue) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)


@pytest.mark.parametrize("what", ASKED)
def test_a_job_that_was_looked_up_is_no_handler_s(pgq: PgQueue, what: str) -> None:
    @pgq.task
    def idle() -> None: ...

    job = pgq.get_job(idle.enqueue().id)
    with pytest.raises(JobDetached, match=f"job {job.id} does not run here") as refused:
        ASKED[what](job)
    assert "annotated Job" in str(refused.value)
    assert isinstance(refused.value, PgQueueError)
    assert refused.value.job_id == job.id


@pytest.mark.parametrize("what", sorted(set(ASKED) - {"cancelled"}))
@pytest.mark.parametrize("kind", ["on the loop", "in a thread", "in a batch"])
async def test_a_handler_s_job_is_nobody_s_once_the_handler_has_ended(
    pgq: PgQueue, kind: str, what: str
) -> None:
    kept: list[Job] = []

    async def on_loop(job: Job) -> None:
        kept.append(job)

    def in_thread(job: Job) -> None:
        kept.append(job)

    def in_batch(jobs: list[Job]) -> None:
        kept.extend(jobs)

    ways: dict[str, Any] = {"on the loop": on_loop, "in a thread": in_thread}
    options = {"batch": 2} if kind == "in a batch" else {}
    pgq.task(name="keep", **options)(ways.get(kind, in_batch)).enqueue()
    await work(pgq)
    with pytest.raises(JobDetached, match="its handler has ended"):
        ASKED[what](kept[0])
    assert not kept[0].cancelled


async def test_a_thread_of_the_handler_s_own_may_ask_while_the_handler_runs(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    def with_a_thread(job: Job) -> None:
        thread = threading.Thread(target=lambda: job.step("beside", str, 7))
        thread.start()
        thread.join()

    with_a_thread.enqueue()
    await work(pgq)
    assert value(database, "select result from pgqueue.job_steps where name = 'beside'") == "7"


async def test_a_process_of_its_own_knows_when_its_handler_has_ended(
    pgq: PgQueue, database: str
) -> None:
    pytest.importorskip("pebble", reason='isolation="process" needs the extra `process`')
    keep = pgq.task(isolation="process")(keep_job)
    keep.enqueue()
    keep.enqueue()
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, concurrency=1).run(), 40)
    results = "select result from pgqueue.finished_jobs order by id"
    assert value(database, results) is None
    said = value(database, results + " offset 1")
    assert "its handler has ended" in said


def test_the_job_that_a_handler_has_cannot_wait_for_its_own_end(pgq: PgQueue) -> None:
    failed: list[Exception] = []

    @pgq.task
    def selfish(job: Job) -> None:
        try:
            job.result(timeout=1)
        except JobDetached as error:
            failed.append(error)

    job_id = selfish.enqueue().id
    asyncio.run(work(pgq))
    assert [str(error) for error in failed] == [
        f"job {job_id} has no app to ask: use pgq.get_job({job_id})"
    ]

"""Cancel reaches a running handler within a second, and nothing it writes later counts."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from pgqueue import Job, LeaseLost, PgQueue
from pgqueue.events import LeasesLost
from proving import Recorder, rows, until

SECOND = 1.0


async def test_an_async_handler_is_cancelled_within_a_second(
    pgq: PgQueue, working: Any, database: str
) -> None:
    started, seen = asyncio.Event(), asyncio.Event()
    rows(database, "create table effects (n int)")

    @pgq.task
    async def wait_for_ever(job: Job) -> None:
        try:
            started.set()
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.set()
            raise

    async with working():
        job = await wait_for_ever.aenqueue()
        await started.wait()
        began = time.monotonic()
        cancelled = await pgq.acancel(job.id)
        await seen.wait()
        assert time.monotonic() - began < SECOND
        ended = await asyncio.to_thread(until, lambda: _ending(database, job))
    assert cancelled.marked == (job.id,)
    assert ended == ("cancelled", "cancelled", "on demand")


async def test_a_thread_sees_cancelled_within_a_second_and_writes_nothing_after_it(
    pgq: PgQueue, working: Any, database: str
) -> None:
    started = threading.Event()
    ending: dict[str, Any] = {}
    over = threading.Event()
    rows(database, "create table effects (n int)")

    @pgq.task
    def stubborn(job: Job) -> str:
        started.set()
        until(lambda: job.cancelled, within=20)
        ending["seen"] = time.monotonic()
        # Goes on although it was told to stop: by then the job is over.
        until(lambda: _ending(database, job))
        try:
            with job.transaction() as connection:
                connection.execute("insert into effects values (1)")
        except LeaseLost as error:
            ending["refused"] = error
        job.progress(99, "still here")
        over.set()
        return "too late"

    async with working():
        job = stubborn.enqueue()
        await asyncio.to_thread(started.wait)
        began = time.monotonic()
        pgq.cancel(job.id)
        await asyncio.to_thread(over.wait, 20)
        assert ending["seen"] - began < SECOND
    assert isinstance(ending["refused"], LeaseLost)
    assert rows(database, "select n from effects") == []
    found = rows(database, "select state, result, progress from pgqueue.all_jobs")
    assert found == [("cancelled", None, None)]


async def test_an_async_handler_that_refuses_to_stop_changes_nothing_afterwards(
    pgq: PgQueue, working: Any, database: str, recorder: Recorder
) -> None:
    started = asyncio.Event()
    rows(database, "create table effects (n int)")

    @pgq.task
    async def swallow(job: Job) -> str:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            # Its lease still stands, so it may tidy up; and it reports success.
            async with job.transaction() as connection:
                await connection.execute("insert into effects values (1)")
        return "done all the same"

    async with working():
        job = await swallow.aenqueue()
        await started.wait()
        await pgq.acancel(job.id)
        await asyncio.to_thread(until, lambda: _ending(database, job))
    assert _ending(database, job)[0] in {"cancelled", "completed"}
    assert recorder.of(LeasesLost) == []


def _ending(database: str, job: Job) -> Any:
    query = (
        "select state, errors -> -1 ->> 'reason', errors -> -1 ->> 'message' "
        "from pgqueue.finished_jobs where id = %s"
    )
    found = rows(database, query, [job.id])
    return found[0] if found else None

"""What a handler with `Parents[T]` is handed where its parents gave nothing, or something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pgqueue import Cancel, Parents, PgQueue, Retry
from proving import value, workers_started_long_ago
from workflows import apart

ERRORS = "select errors from pgqueue.finished_jobs where id = %s"


async def work(pgq: PgQueue) -> None:
    """Until nothing is left that is due."""
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False, concurrency=4).run(), 40)


async def nothing() -> None: ...


async def one() -> int:
    return 1


async def text() -> str:
    return "seven"


async def called_off() -> int:
    raise Cancel("not today")


def after(pgq: PgQueue, parents: list[Callable[..., Any]], child: Any, **policy: Any) -> int:
    """The id of a child of these, whose handlers' names are those of the nodes."""
    wf = pgq.workflow("parents")
    for parent in parents:
        wf.add(parent.__name__, pgq.task(parent).payload())
    wf.add("child", child.payload(), after=[parent.__name__ for parent in parents], **policy)
    return wf.enqueue().jobs["child"]


async def test_a_parent_of_another_type_fails_the_child_at_once_and_is_named(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task(retry=Retry(attempts=3, delays=[0]))
    async def total(parents: Parents[int]) -> int:
        return sum(parents.values())

    job_id = after(pgq, [one, text], total)
    workers_started_long_ago(database)
    await work(pgq)
    assert pgq.get_job(job_id).state == "failed"
    (error,) = value(database, ERRORS, [job_id])
    assert error["reason"] == "payload-invalid"
    assert "parents['text']: Input should be a valid integer" in error["message"]
    assert "parents['one']" not in error["message"]


async def test_a_parent_that_returned_nothing_is_refused_with_what_to_annotate(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    async def total(parents: Parents[int]) -> int:
        return sum(parents.values())

    job_id = after(pgq, [one, nothing], total)
    workers_started_long_ago(database)
    await work(pgq)
    (error,) = value(database, ERRORS, [job_id])
    assert error["reason"] == "payload-invalid"
    assert "parents['nothing']: Input should be a valid integer" in error["message"]
    assert "it returned None: annotate Parents[… | None]" in error["message"]


async def test_a_child_in_a_process_of_its_own_fails_at_once_too(
    pgq: PgQueue, database: str
) -> None:
    pytest.importorskip("pebble", reason='isolation="process" needs the extra `process`')
    total = pgq.task(isolation="process", retry=Retry(attempts=3, delays=[0]))(apart.total_apart)
    job_id = after(pgq, [nothing], total)
    workers_started_long_ago(database)
    await work(pgq)
    (error,) = value(database, ERRORS, [job_id])
    assert error["reason"] == "payload-invalid"
    assert pgq.get_job(job_id).attempt == 1


async def test_a_parent_that_returned_nothing_is_there_as_none_for_a_type_that_has_it(
    pgq: PgQueue,
) -> None:
    @pgq.task
    async def look(parents: Parents[int | None]) -> dict[str, int | None]:
        return dict(parents)

    job_id = after(pgq, [one, nothing], look)
    await work(pgq)
    found = await pgq.get_job(job_id).aresult(timeout=5)
    assert found == {"one": 1, "nothing": None}


@pytest.mark.parametrize("kind", [Parents[int], Parents[int | None], Parents])
async def test_a_cancelled_parent_is_no_result_and_is_seen_whatever_the_type(
    pgq: PgQueue, kind: Any
) -> None:
    async def look(parents: Any) -> list[Any]:
        return [dict(parents), parents.get("called_off"), parents.outcomes["called_off"]]

    look.__annotations__["parents"] = kind
    job_id = after(pgq, [one, called_off], pgq.task(look), parent_cancelled="ignore")
    await work(pgq)
    assert await pgq.get_job(job_id).aresult(timeout=5) == [{"one": 1}, None, "cancelled"]

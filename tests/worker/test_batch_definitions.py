"""What a batch task may look like; what may not is refused with its exact error."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from pgqueue import ConfigError, Job, PayloadInvalid, PgQueue


class Item(BaseModel):
    n: int


async def drain(pgq: PgQueue, **options: Any) -> None:
    worker = pgq.worker(burst=True, scheduler=False, **options)
    await asyncio.wait_for(worker.run(), 40)


class Typed(TypedDict):
    n: int


@dataclasses.dataclass
class Data:
    n: int


@pytest.mark.parametrize("kind", [Item, Typed, Data, dict, dict[str, int]])
async def test_a_payload_is_an_object_of_any_usual_kind(pgq: PgQueue, kind: Any) -> None:
    got: list[Any] = []

    def handle(items: Any) -> None:
        got.extend(items)

    handle.__annotations__["items"] = list[kind]
    pgq.task(batch=10)(handle).enqueue(n=5)
    await drain(pgq)
    (item,) = got
    assert (item["n"] if isinstance(item, dict) else item.n) == 5


def test_what_a_payload_lacks_is_told_when_it_is_enqueued(pgq: PgQueue) -> None:
    @pgq.task(batch=10)
    def handle(items: list[Item]) -> None: ...

    with pytest.raises(PayloadInvalid) as caught:
        handle.enqueue(m=5)
    assert caught.value.problems[0] == ("n", "Field required")


def nothing() -> None: ...
def single(n: int) -> None: ...
def with_job(items: list[Item], job: Job) -> None: ...
def with_connection(items: list[Item], connection: psycopg.Connection[Any]) -> None: ...
def two_lists(items: list[Item], others: list[Item]) -> None: ...
def two_jobs(jobs: list[Job], others: list[Job]) -> None: ...
def of_numbers(items: list[int]) -> None: ...
def plain(items: list) -> None: ...  # type: ignore[type-arg]
def items(items: list[Item]) -> None: ...
def nowhere(items: list[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821


NO_LIST = (
    "parameter {!r} of a batch handler must be a list, such as list[Item] of a payload type, or "
    "list[Job]"
)
WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (items, {"batch": 0}, "batch 0 is not valid: 1 to 1,000"),
    (items, {"batch": 1001}, "batch 1001 is not valid: 1 to 1,000"),
    (items, {"batch": True}, "batch True is not valid: 1 to 1,000"),
    (items, {"batch": "all"}, "batch 'all' is not valid: 1 to 1,000"),
    (items, {"max_wait": 1}, "max_wait needs batch"),
    (items, {"batch": 2, "max_wait": -1}, "max_wait -1 is not valid: 0 to 60 seconds"),
    (items, {"batch": 2, "max_wait": 61}, "max_wait 61 is not valid: 0 to 60 seconds"),
    (items, {"batch": 2, "max_wait": "1"}, "max_wait '1' is not valid: 0 to 60 seconds"),
    (
        items,
        {"batch": 2, "isolation": "process"},
        'a batch handler cannot have isolation="process"',
    ),
    (nothing, {"batch": 2}, "a batch handler takes a list of payloads or list[Job]"),
    (single, {"batch": 2}, NO_LIST.format("n")),
    (with_job, {"batch": 2}, NO_LIST.format("job")),
    (with_connection, {"batch": 2}, NO_LIST.format("connection")),
    (plain, {"batch": 2}, NO_LIST.format("items")),
    (two_lists, {"batch": 2}, "two parameters are lists of payloads"),
    (two_jobs, {"batch": 2}, "two parameters are lists of jobs"),
    (
        of_numbers,
        {"batch": 2},
        (
            "parameter 'items': one job's payload is a pydantic model, a dataclass, a TypedDict or "
            "a dict"
        ),
    ),
    (
        nowhere,
        {"batch": 2},
        "an annotation cannot be resolved (name 'Nowhere' is not defined): import it at run time",
    ),
]


@pytest.mark.parametrize(("function", "options", "message"), WRONG)
def test_a_malformed_batch_task_is_refused_with_its_exact_error(
    pgq: PgQueue, function: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = pgq.task(name="t", **options)(function).signature
    assert str(caught.value) == f"task 't': {message}"


@pytest.mark.parametrize(("call", "what"), [("sleep", "sleep"), ("wait_for", "wait")])
async def test_a_batch_handler_cannot_be_left_for_one_of_its_jobs(
    pgq: PgQueue, call: str, what: str
) -> None:
    @pgq.task(batch=2)
    async def handle(jobs: list[Job]) -> None:
        arguments = (1,) if call == "sleep" else ("paid", 7)
        await getattr(jobs[0], call)(*arguments)

    job = handle.enqueue()
    await drain(pgq)
    assert pgq.show_job(job.id)["errors"][0]["message"] == (
        f"a batch handler cannot {what}: its jobs have one call between them; do that in a task of "
        "its own"
    )

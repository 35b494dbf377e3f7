"""Steps, sleeps, waits and events that are not well formed: each is told with its exact error."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from typing import Any

import psycopg
import pytest

from pgqueue import ConfigError, Job, PgQueue, Retry
from proving import rows

TWICE = Retry(attempts=2, delays=[0])
KEPT = "select name, result, attempt from pgqueue.job_steps where kind = 'step' order by name"


async def work(pgq: PgQueue, **options: Any) -> None:
    worker = pgq.worker(burst=True, scheduler=False, **options)
    await asyncio.wait_for(worker.run(), 30)


def error_of(pgq: PgQueue, job_id: int) -> str:
    """The last error's message."""
    return str(pgq.show_job(job_id)["errors"][-1]["message"])


async def fetch() -> None: ...


def on_sync(connection: psycopg.Connection[Any]) -> None: ...


def on_async(connection: psycopg.AsyncConnection[Any]) -> None: ...


def unresolved(connection: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


TEXT = "text of 1 to 200 bytes, without NUL or lone surrogates"
WRONG_IN_SYNC: list[tuple[Any, str]] = [
    (lambda job: job.step("", print), f"step name '' is not valid: {TEXT}"),
    (lambda job: job.step(None, print), f"step name '' is not valid: {TEXT}"),
    (lambda job: job.step(7, print), f"step name 7 is not valid: {TEXT}"),
    (lambda job: job.step("x" * 201, print), "step name has 201 bytes, and 200 is the most"),
    (
        lambda job: job.step("a", 5),
        "step 'a' takes a function and its arguments, not int: job.step('a', function, …)",
    ),
    (lambda job: job.step("a", fetch), "step 'a': an async function needs an async handler"),
    (
        lambda job: job.step("a", on_async),
        "step 'a': this handler gives its steps a psycopg.Connection",
    ),
    (
        lambda job: job.step("a", unresolved),
        (
            "step 'a': an annotation cannot be resolved (name 'Nowhere' is not defined): "
            "import it at run time"
        ),
    ),
    (
        lambda job: [job.step("a", int), job.step("a", int)],
        (
            "step 'a' comes twice in one run of the handler: give each a name of its own, "
            "in a loop such as f'a-{n}'"
        ),
    ),
    (
        lambda job: job.step("a", lambda: math.nan),
        "result of step 'a': not JSON: Out of range float values are not JSON compliant",
    ),
    (
        lambda job: job.step("a", lambda: "\x00"),
        "result of step 'a': holds a NUL character, which Postgres cannot store",
    ),
    (
        lambda job: job.step("a", lambda: "x" * 1_000_001),
        "result of step 'a': more than 1,000,000 bytes, which is the most",
    ),
    (lambda job: job.sleep("long"), "sleep 'long' is not valid: seconds or a timedelta"),
    (lambda job: job.sleep(how_long=True), "sleep True is not valid: seconds or a timedelta"),
    (lambda job: job.sleep(math.nan), "sleep nan is not valid: seconds, 100 years at most"),
    (lambda job: job.sleep(1e12), "sleep 1000000000000.0 is not valid: seconds, 100 years at most"),
    (
        lambda job: job.sleep(datetime(2030, 1, 1)),  # noqa: DTZ001 - that is the point
        "sleep until 2030-01-01T00:00:00 has no time zone: use an aware datetime",
    ),
    (
        lambda job: [job.sleep(0, name="nap"), job.sleep(0, name="nap")],
        (
            "sleep 'nap' comes twice in one run of the handler: give each a name of its own, "
            "in a loop such as f'nap-{n}'"
        ),
    ),
    (
        lambda job: job.wait_for("paid now", 7),
        "event name 'paid now' is not valid: 1 to 200 letters, digits and the signs _ . : -",
    ),
    (lambda job: job.wait_for("paid", None), "event key None is not valid: text or a whole number"),
    (
        lambda job: job.wait_for("paid", ""),
        "event key '' is not valid: text of 1 to 1000 bytes, without NUL or lone surrogates",
    ),
    (
        lambda job: job.wait_for("paid", "k" * 1001),
        "event key has 1001 bytes, and 1000 is the most",
    ),
    (
        lambda job: job.wait_for("paid", 7, timeout="soon"),
        "wait_for timeout 'soon' is not valid: seconds or a timedelta",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_IN_SYNC)
async def test_what_is_malformed_fails_with_its_exact_error(
    pgq: PgQueue, wrong: Any, message: str
) -> None:
    @pgq.task
    def handle(job: Job) -> None:
        wrong(job)

    job = handle.enqueue()
    await work(pgq)
    assert pgq.get_job(job.id).state == "failed"
    assert error_of(pgq, job.id) == message


async def test_an_async_handlers_step_refuses_a_sync_connection(pgq: PgQueue) -> None:
    @pgq.task
    async def handle(job: Job) -> None:
        await job.step("a", on_sync)

    job = handle.enqueue()
    await work(pgq)
    message = "step 'a': this handler gives its steps a psycopg.AsyncConnection"
    assert error_of(pgq, job.id) == message


async def test_a_coroutine_instead_of_a_function_is_told(pgq: PgQueue) -> None:
    @pgq.task
    async def handle(job: Job) -> None:
        called = fetch()
        try:
            await job.step("a", called)  # type: ignore[arg-type]
        finally:
            called.close()

    job = handle.enqueue()
    await work(pgq)
    expected = (
        "step 'a' takes a function and its arguments, not coroutine: job.step('a', function, …)"
    )
    assert error_of(pgq, job.id) == expected


NO_NAME = "is not valid: 1 to 200 letters, digits and the signs _ . : -"
NO_PAYLOAD = "payload of event 'paid' cannot be stored:"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("", 1), f"event name '' {NO_NAME}"),
        (("a b", 1), f"event name 'a b' {NO_NAME}"),
        ((None, 1), f"event name None {NO_NAME}"),
        (("paid", None), "event key None is not valid: text or a whole number"),
        (("paid", True), f"event key True is not valid: {TEXT.replace('200', '1000')}"),
        (
            ("paid", 1, math.inf),
            f"{NO_PAYLOAD} not JSON: Out of range float values are not JSON compliant",
        ),
        (
            ("paid", 1, "\x00"),
            f"{NO_PAYLOAD} holds a NUL character, which Postgres cannot store",
        ),
        (
            ("paid", 1, "x" * 1_000_001),
            f"{NO_PAYLOAD} more than 1,000,000 bytes, which is the most",
        ),
    ],
)
def test_what_is_malformed_is_told_to_who_emits(pgq: PgQueue, wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pgq.emit(*wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "null, 'k'",
            "event name null is not valid: 1 to 200 letters, digits and the signs _ . : -",
        ),
        (
            "'a b', 'k'",
            "event name 'a b' is not valid: 1 to 200 letters, digits and the signs _ . : -",
        ),
        ("'a', ''", "event key is not valid: 1 to 1000 bytes"),
        ("'a', repeat('k', 1001)", "event key is not valid: 1 to 1000 bytes"),
        (
            "'a', 'k', to_jsonb(repeat('k', 1000001))",
            "payload has 1000003 bytes, and 1000000 is the most",
        ),
    ],
)
def test_sql_that_emits_what_is_malformed_is_told_so(
    database: str, call: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        rows(database, f"select pgqueue.emit({call})")
    assert caught.value.diag.message_primary == message

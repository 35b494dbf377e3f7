"""A rule of the app's own for retries may be wrong: that ends its job, and nothing else."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from pgqueue import PgQueue, Retry, RetryAfter, Snooze
from pgqueue.events import DutyFailed
from proving import Recorder, rows, states


async def work(pgq: PgQueue) -> None:
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)


def broken(attempt: int, error: BaseException) -> float | None:
    raise LookupError("the rule's own mistake")


def too_long(attempt: int, error: BaseException) -> float | None:
    return math.inf


def past_floats(attempt: int, error: BaseException) -> float | None:
    return 10**400


@pytest.mark.parametrize(
    ("rule", "kind"),
    [(broken, "LookupError"), (too_long, "ValueError"), (past_floats, "OverflowError")],
)
async def test_a_rule_that_is_wrong_fails_the_job_and_shows_both_mistakes(
    pgq: PgQueue,
    database: str,
    recorder: Recorder,
    rule: Callable[[int, BaseException], float | None],
    kind: str,
) -> None:
    @pgq.task(retry=Retry(attempts=5, decide=rule))
    async def work_wrong() -> None:
        raise KeyError("the handler's mistake")

    work_wrong.enqueue()
    await work(pgq)
    ((state, attempt, error),) = rows(
        database, "select state, attempt, errors -> 0 from pgqueue.finished_jobs"
    )
    assert (state, attempt, error["type"]) == ("failed", 1, kind)
    assert "the handler's mistake" in error["traceback"]
    assert recorder.of(DutyFailed) == []


@pytest.mark.parametrize("verdict", [Snooze(10**300), RetryAfter(math.nan), Snooze(math.inf)])
async def test_a_wait_beyond_all_numbers_fails_the_job(
    pgq: PgQueue, database: str, recorder: Recorder, verdict: Any
) -> None:
    @pgq.task(retry=Retry(attempts=5))
    async def wait() -> None:
        raise verdict

    wait.enqueue()
    await work(pgq)
    assert states(database) == {"failed": 1}
    assert recorder.of(DutyFailed) == []

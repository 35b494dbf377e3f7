"""What is kept of an error goes through the app's hook first."""

from __future__ import annotations

import asyncio

import pytest

from pgqueue import PgQueue
from pgqueue.events import DutyFailed
from proving import Recorder, rows


@pytest.mark.parametrize("broken", ["raises", "returns-no-text"])
async def test_a_redact_hook_that_fails_lets_no_secret_through_and_the_job_still_fails(
    database: str, recorder: Recorder, broken: str
) -> None:
    def hook(text: str) -> str:
        if broken == "raises":
            raise ValueError(f"cannot read {text}")
        return None  # type: ignore[return-value]  # what a hook without a return gives

    pgq = PgQueue(database_url=database, redact=hook)

    @pgq.task
    def log_in() -> None:
        raise PermissionError("password hunter2 is wrong")

    job_id = log_in.enqueue().id
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    ((errors,),) = rows(database, "select errors from pgqueue.all_jobs where id = %s", [job_id])
    (error,) = errors
    assert pgq.get_job(job_id).state == "failed"
    assert "hunter2" not in str(error)
    assert "kept back" in error["message"]
    assert "redact" in {event.duty for event in recorder.of(DutyFailed)}

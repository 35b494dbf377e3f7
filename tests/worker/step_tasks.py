"""Handlers that a child process has to find."""

from __future__ import annotations

from typing import Any

from pgqueue import Job, JobDetached


def in_process(job: Job) -> Any:
    kept = job.step("pid", lambda: "first" if job.attempt == 1 else "second")
    if job.attempt == 1:
        raise OSError("away")
    return kept


def naps_in_process(job: Job) -> str:
    job.sleep(0.2)
    return str(job.wait_for("woken", job.id, timeout=30))


_kept: list[Job] = []


def keep_job(job: Job) -> str | None:
    """What the process says of the job before this one, if it had one."""
    _kept.append(job)
    try:
        _kept[0].log("late")
    except JobDetached as error:
        return str(error)
    return None

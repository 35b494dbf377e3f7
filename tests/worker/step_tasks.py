"""Handlers that a child process has to find."""

from __future__ import annotations

from typing import Any

from pgqueue import Job


def in_process(job: Job) -> Any:
    kept = job.step("pid", lambda: "first" if job.attempt == 1 else "second")
    if job.attempt == 1:
        raise OSError("away")
    return kept


def naps_in_process(job: Job) -> str:
    job.sleep(0.2)
    return str(job.wait_for("woken", job.id, timeout=30))

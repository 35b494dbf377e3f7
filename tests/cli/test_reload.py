"""`pgq worker --reload`: new code is picked up, and Ctrl-C hands back what runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("watchfiles", reason="the extra `reload` is not installed")

PGQ = Path(sys.executable).with_name("pgq")
SLOW = """
@pgq.task
async def slow() -> None:
    import asyncio
    await asyncio.sleep(600)
"""

Log = Iterator[dict[str, Any]]


@pytest.fixture
def worker(folder: Path, app: str, rows: Callable[[], int]) -> Iterator[subprocess.Popen[str]]:
    """A reloading worker in a process group of its own, as a shell starts it."""
    process = subprocess.Popen(
        [PGQ, "worker", "--reload", "--log-level", "debug", "--shutdown-timeout", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def events(worker: subprocess.Popen[str]) -> Log:
    """What the worker logs, line by line; ends with the process."""
    assert worker.stderr is not None
    return (json.loads(line) for line in worker.stderr if line.startswith("{"))


def until(log: Log, event: str) -> dict[str, Any]:
    return next(facts for facts in log if facts["event"] == event)


def test_changed_code_is_served_without_a_restart_by_hand(
    worker: subprocess.Popen[str], folder: Path, app: str
) -> None:
    log = events(worker)
    assert until(log, "worker started")["tasks"] == ["add", "report"]
    with (folder / f"{app}.py").open("a", encoding="utf-8") as module:
        module.write(SLOW)
    until(log, "worker stopped")
    assert until(log, "worker started")["tasks"] == ["add", "report", "slow"]


def test_ctrl_c_hands_the_running_job_back_and_costs_it_no_attempt(
    folder: Path, app: str, database: str, request: pytest.FixtureRequest
) -> None:
    with (folder / f"{app}.py").open("a", encoding="utf-8") as module:
        module.write(SLOW)
    worker = request.getfixturevalue("worker")
    log = events(worker)
    until(log, "worker started")
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into pgqueue.jobs (task, queue, payload) values ('slow', 'default', '{}')"
        )
    until(log, "job started")
    # A terminal sends it to everybody in the group: the watcher and the worker.
    os.killpg(worker.pid, signal.SIGINT)
    assert until(log, "worker stopped")["handed_back"] == 1
    assert worker.wait(60) == 0
    with psycopg.connect(database) as connection:
        job = connection.execute("select state, attempt from pgqueue.jobs").fetchone()
    assert job == ("queued", 0)

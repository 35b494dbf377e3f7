"""Postgres goes away under a busy worker and comes back: the worker carries on by itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import QUICK, Processes

from pgqueue import PgQueue, embedded
from pgqueue.db import upgrade
from pgqueue.settings import normalised_url, read_settings
from proving import rows, states, until, value

JOBS = 800


@pytest.fixture
def own_server() -> Iterator[embedded.EmbeddedServer]:
    """Durable, unlike the server of the other tests: here a crash must lose nothing."""
    directory = Path(tempfile.mkdtemp(prefix="pgqtest-", dir="/tmp"))
    try:
        with embedded.start(directory) as server:
            upgrade.move(read_settings(database_url=server.url), normalised_url(server.url))
            yield server
    finally:
        shutil.rmtree(directory)


def _any_length(ms: int) -> None: ...


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_worker_outlives_restarts_of_its_database_and_nothing_is_lost_or_doubled(
    own_server: embedded.EmbeddedServer, processes: Processes, mode: Any
) -> None:
    url = own_server.url
    rows(url, "create table effects (job_id bigint)")
    app = PgQueue(url)
    for name in ("effect", "effect-sync"):
        app.task(name=name)(_any_length).enqueue_many([{"ms": 10}] * (JOBS // 2))
    app.close()
    worker = processes.pgq(url, "worker", "--concurrency", "8", **QUICK)
    for part in (4, 2):
        until(lambda part=part: _completed(url) > JOBS // part)
        assert _completed(url) < JOBS, "too late to disturb anybody"
        own_server.restart(mode)
        assert worker.poll() is None, processes.said[-3000:]
    until(lambda: states(url) == {"completed": JOBS}, within=60)

    assert worker.poll() is None, processes.said[-3000:]
    assert value(url, "select count(*) from effects") == JOBS
    assert value(url, "select count(distinct job_id) from effects") == JOBS
    worker.terminate()
    worker.communicate(timeout=20)
    assert worker.returncode == 0


def _completed(url: str) -> int:
    return states(url).get("completed", 0)

"""An operator's command does not hang on a row that somebody's open transaction holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.engine import operate
from pgqueue.errors import JobBusy
from proving import rows, states

COMMANDS: dict[str, Callable[[PgQueue, list[int]], Any]] = {
    "cancel": lambda pgq, ids: pgq.cancel(*ids),
    "delete": lambda pgq, ids: pgq.delete(*ids),
    "run now": lambda pgq, ids: pgq.retry(*ids),
}


@pytest.fixture
def ids(pgq: PgQueue) -> list[int]:
    @pgq.task
    def work() -> None: ...

    return work.using(delay=3600).enqueue_many([{}] * 3)


@pytest.fixture
def holder(database: str, ids: list[int]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as connection:
        connection.execute("select from pgqueue.jobs where id = %s for update", [ids[1]])
        yield connection


@pytest.mark.parametrize("command", COMMANDS)
def test_it_waits_a_while_then_says_which_job_is_held_and_what_to_do(
    pgq: PgQueue,
    database: str,
    ids: list[int],
    holder: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setattr(operate, "WAIT", 0.3)
    began = time.monotonic()
    with pytest.raises(JobBusy) as refused:
        COMMANDS[command](pgq, ids)
    assert 0.3 <= time.monotonic() - began < 5
    assert refused.value.job_ids == (ids[1],)
    assert str(refused.value) == (
        f"job {ids[1]} is held by an open transaction (waited 0.3 s): nothing was changed in its "
        "batch; end that transaction, which pg_blocking_pids finds, or try again"
    )
    assert states(database) == {"queued": 3}
    assert rows(database, "select from pgqueue.audit_log") == []

    holder.rollback()
    COMMANDS[command](pgq, ids)
    assert rows(database, "select target from pgqueue.audit_log") == [("3 jobs",)]


def test_the_wait_is_as_long_as_that_for_a_unique_key() -> None:
    assert operate.WAIT == 5.0

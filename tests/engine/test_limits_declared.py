"""Two processes that declare what limits their tasks, at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.limits import declare
from proving import blocked_on, rows, until

DECLARED = "select task, names from pgqueue.task_limits"


@contextmanager
def _holding(url: str, task: str) -> Iterator[None]:
    """What a task declares, locked by a transaction of somebody's."""
    with psycopg.connect(url) as gate:
        gate.execute("select from pgqueue.task_limits where task = %s for update", [task])
        yield


class Declaring:
    """Declares in a thread, on a connection of its own."""

    def __init__(self, pgq: PgQueue, url: str, threads: ThreadPoolExecutor) -> None:
        self._pgq = pgq
        self._url = url
        self._threads = threads

    def start(self, names: Mapping[str, tuple[str, ...]]) -> tuple[Future[None], int]:
        connection = connect(self._url)
        pid = connection.info.backend_pid

        def go() -> None:
            with connection:
                run(connection, declare(self._pgq.sql, [], names))

        return self._threads.submit(go), pid


@pytest.fixture
def declaring(pgq: PgQueue, database: str) -> Iterator[Declaring]:
    with ThreadPoolExecutor() as threads:
        yield Declaring(pgq, database, threads)


def _waits(url: str, pid: int) -> bool:
    return bool(rows(url, "select 1 where cardinality(pg_blocking_pids(%s)) > 0", [pid]))


def test_a_task_that_lost_its_limits_and_one_that_got_some_do_not_deadlock_two_versions(
    database: str, declaring: Declaring
) -> None:
    for task in ("a", "b", "z"):
        declaring.start({task: ("before",)})[0].result()
    with _holding(database, "z"):
        older, older_pid = declaring.start({"a": ("older",), "b": (), "z": ("older",)})
        until(lambda: _waits(database, older_pid))
        newer, newer_pid = declaring.start({"a": (), "b": ("newer",)})
        until(lambda: newer.done() or _waits(database, newer_pid))
    older.result()
    newer.result()
    declared = dict(rows(database, DECLARED))
    assert declared["z"] == ["older"]


def test_the_same_tasks_in_another_order_do_not_deadlock_two_workers(
    database: str, declaring: Declaring
) -> None:
    tasks = dict.fromkeys(("a", "m", "z"), ("before",))
    declaring.start(tasks)[0].result()
    with _holding(database, "m"):
        one, one_pid = declaring.start(dict.fromkeys(("a", "m", "z"), ("one",)))
        until(lambda: _waits(database, one_pid))
        other, other_pid = declaring.start(dict.fromkeys(("z", "m", "a"), ("other",)))
        until(lambda: blocked_on(database, one_pid))
        until(lambda: _waits(database, other_pid))
    one.result()
    other.result()
    assert {tuple(names) for _, names in rows(database, DECLARED)} == {("other",)}


def test_a_start_with_what_is_declared_already_waits_for_nobody(
    database: str, declaring: Declaring
) -> None:
    names = {"limited": ("email",), "free": ()}
    declaring.start(names)[0].result()
    with _holding(database, "limited"):
        declaring.start(names)[0].result(timeout=20)

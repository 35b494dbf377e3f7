"""`pgq up`: the whole queue in one process, as a container runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

PGQ = Path(sys.executable).with_name("pgq")
Run = Callable[..., Any]


class Up:
    """A running `pgq up` and its log, which ends when the process does."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [PGQ, "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, event: str) -> dict[str, Any]:
        """The log line of that event; fails with the rest of the log when it never comes."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            facts = json.loads(line) if line.startswith("{") else {}
            if facts.get("event") == event:
                return dict(facts)
        raise AssertionError(f"{event!r} never came:\n{''.join(seen)}")

    def ends(self) -> int:
        """The exit code, once it is over."""
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def up(folder: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_it_migrates_works_and_stops_on_sigterm(
    up: Callable[..., Up],
    app: str,
    pgq_process: Run,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", empty_database)
    running = up("--log-level", "debug")
    assert running.until("database is migrated")["schema"] == "pgqueue"
    running.until("worker started")
    assert pgq_process("enqueue", "add", '{"a": 1}').code == 0
    assert running.until("job completed")["task"] == "add"
    alive = pgq_process("worker", "check")
    assert (alive.code, alive.err) == (0, "")
    assert str(running.process.pid) in alive.out
    running.process.send_signal(signal.SIGTERM)
    assert running.until("worker stopped")["completed"] == 1
    assert running.ends() == 0
    dead = pgq_process("worker", "check")
    assert (dead.code, dead.out) == (1, "")
    assert re.fullmatch(r"pgq: no worker on host '.*' has beaten within 15 s\n", dead.err)


def test_it_waits_for_a_database_that_is_not_there_yet(
    up: Callable[..., Up], app: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = f"{psycopg.conninfo.conninfo_to_dict(empty_database)['dbname']}_late"
    url = psycopg.conninfo.make_conninfo(empty_database, dbname=late)
    name = sql.Identifier(late)
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", url)
    running = up()
    assert late in running.until("waiting for the database")["reason"]
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(name))
        try:
            running.until("worker started")
            running.process.send_signal(signal.SIGTERM)
            assert running.ends() == 0
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))


def test_it_gives_up_on_a_database_that_does_not_come(
    up: Callable[..., Up], app: str, pgq_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x")
    said = pgq_process("up", "--wait-for-db", "0.1")
    assert said.code == 1
    line = "pgq: cannot connect to database 'x' at 127.0.0.1:1: Connection refused"
    assert said.err.splitlines()[-1] == line
    assert "secret" not in said.err


def test_an_older_version_comes_up_on_a_database_that_vouches_for_it(
    up: Callable[..., Up], app: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("update pgqueue.schema_info set version = 99")
        connection.execute("update pgqueue.alembic_version set version_num = '9999'")
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)
    running = up()
    running.until("the database is ahead, and works with this version")
    running.until("worker started")
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0

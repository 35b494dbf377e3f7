"""`pgq worker --processes N` that cannot start says so once, and does not try for ever."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from supervising import Supervisor

from proving import rows as read


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        ("PGQUEUE_APP=nothing:pgq", 2, "app 'nothing:pgq' cannot be imported: No module named"),
        ("PGQUEUE_DATABASE_URL=postgresql://127.0.0.1:1/x", 1, "cannot connect to database 'x'"),
        ("drop schema pgqueue cascade", 1, "the database has no pgqueue tables"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_told_once(
    change: str,
    code: int,
    line: str,
    start: Callable[..., Supervisor],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, is_setting, setting = change.partition("=")
    if is_setting:
        monkeypatch.setenv(name, setting)
    else:
        read(database, change)
    running = start("worker", "--processes", "4")
    assert running.ends() == code
    assert running.said.startswith(f"pgq: {line}")
    assert running.said.count("\n") == 1


def test_a_health_port_that_is_taken_is_told_before_anything_starts(
    start: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PGQUEUE_HEALTH_PORT", str(port))
        running = start()
        assert running.ends() == 2
    assert running.said.startswith(f"pgq: no health endpoint at 127.0.0.1:{port}: ")
    assert running.said.count("\n") == 1


def test_a_first_process_that_a_signal_kills_is_no_reason_to_try_for_ever(
    start: Callable[..., Supervisor], folder: Path, app: str
) -> None:
    with (folder / f"{app}.py").open("a", encoding="utf-8") as module:
        module.write("\nos.abort()\n")
    running = start()
    assert running.ends() == 1
    assert running.said.splitlines()[-1] == (
        "pgq: no worker process could start: the first one was killed by SIGABRT; "
        "try the same command with --processes 1"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_anything_works_ends_it_like_any_command(
    number: signal.Signals,
    code: int,
    start: Callable[..., Supervisor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    running = start("worker", "--processes", "2", "--wait-for-db", "60")
    running.waits(lambda: running.told("waiting for the database"))
    running.process.send_signal(number)
    assert running.ends() == code

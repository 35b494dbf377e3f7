"""The command, run in this process as its entry point runs it, or as a process of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from pgqueue.cli.main import main
from supervising import Supervisor

from pgqueue import PgQueue

PGQ = Path(sys.executable).with_name("pgq")

APP = """
from datetime import datetime

from pgqueue import PgQueue

pgq = PgQueue()
not_an_app = 1


@pgq.task
def add(a: int, b: int = 2) -> int:
    return a + b


@pgq.task
def report(day: str, window_start: datetime | None = None) -> str:
    return day
"""

SLOW_TASKS = """
import asyncio, os, time


@pgq.task
async def nap(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@pgq.task
async def block(seconds: float) -> None:
    time.sleep(seconds)
"""


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with nothing of the caller's settings."""
    for name in list(os.environ):
        if name.startswith("PGQUEUE_") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    # Whoever forgets the URL fails here and does not meet somebody's private Postgres.
    monkeypatch.setenv("PGQUEUE_EMBEDDED_DIR", "/dev/null/no-private-postgres")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with an app and two tasks, named as PGQUEUE_APP; a new one for each test."""
    module = f"jobs_{secrets.token_hex(4)}"
    (folder / f"{module}.py").write_text(APP, encoding="utf-8")
    monkeypatch.setenv("PGQUEUE_APP", f"{module}:pgq")
    return module


@pytest.fixture
def pgq_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs `pgq …` in this process, from the entry point on."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["pgq", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        return Said(code, *capfd.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def pgq_process(folder: Path) -> Run:
    """Runs `pgq …` as a process of its own, without standard input."""

    def run(*arguments: str) -> Said:
        answer = subprocess.run(
            [PGQ, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Said(answer.returncode, answer.stdout, answer.stderr)

    return run


@pytest.fixture
def rows(folder: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many rows commands have written; the commands are pointed at a fresh database."""
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)

    def count() -> int:
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "select (select count(*) from pgqueue.jobs)"
                " + (select count(*) from pgqueue.finished_jobs)"
                " + (select count(*) from pgqueue.schedules)"
                " + (select count(*) from pgqueue.windows)"
                " + (select count(*) from pgqueue.workers)"
            ).fetchone()
            assert row is not None
            return int(row[0])

    return count


@pytest.fixture
def start(
    folder: Path, app: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Supervisor]]:
    """Starts `pgq …` on a fresh database, with hearts that are soon missed and quick polls."""
    with (folder / f"{app}.py").open("a", encoding="utf-8") as module:
        module.write(SLOW_TASKS)
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_INTERVAL", "0.3")
    monkeypatch.setenv("PGQUEUE_HEARTBEAT_TIMEOUT", "2")
    monkeypatch.setenv("PGQUEUE_POLL_INTERVAL", "0.1")
    started: list[Supervisor] = []

    def start(*arguments: str) -> Supervisor:
        log = folder / f"{len(started)}.log"
        started.append(Supervisor(log, arguments or ("worker", "--processes", "2")))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def enqueue(database: str) -> Iterator[Callable[..., None]]:
    pgq = PgQueue(database)

    def sleep(seconds: float) -> None: ...

    tasks = {name: pgq.task(name=name)(sleep) for name in ("nap", "block")}

    def enqueue(*seconds: float, task: str = "nap") -> None:
        tasks[task].enqueue_many({"seconds": one} for one in seconds)

    yield enqueue
    pgq.close()

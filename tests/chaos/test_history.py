"""Workers are killed, frozen and cut off at random; afterwards the recorded history is checked."""

# ruff: noqa: S311 - chance, not secrets
from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from history_app import TABLES, TASKS

from proving import rows, until, value

WORKERS = 4
HEARTBEAT_TIMEOUT = 3.0
# Longer than the timeout: who wakes up from this is a zombie.
FROZEN = HEARTBEAT_TIMEOUT + 1.5
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = 'pgqueue' and datname = current_database()
order by random() limit 2
"""
FINISHED = "select id, state, lease, attempt, max_attempts, task from pgqueue.finished_jobs"


class Fleet:
    """Worker processes to be ill-treated; one that dies is replaced."""

    def __init__(self, database: str, logs: Path) -> None:
        self._database = database
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._frozen: dict[int, float] = {}
        self.done: dict[str, int] = {"kill": 0, "freeze": 0, "cut": 0}

    def start(self) -> None:
        environment = {
            **os.environ,
            "PGQUEUE_DATABASE_URL": self._database,
            "PGQUEUE_HISTORY_APP": "1",
            "PGQUEUE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "PGQUEUE_POLL_INTERVAL": "0.2",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        options = ["--app", "history_app:pgq", "--concurrency", "4", "--no-scheduler"]
        command = [sys.executable, "-m", "cli", "worker", *options]
        with self._logs.open("ab") as log:
            self._processes.append(subprocess.Popen(command, env=environment, stderr=log))

    def harass(self, what: str) -> None:
        self._thaw(time.monotonic())
        self._processes = [process for process in self._processes if process.poll() is None]
        while len(self._processes) < WORKERS:
            self.start()
        awake = [process for process in self._processes if process.pid not in self._frozen]
        if what == "cut":
            rows(self._database, CUT)
        elif what == "freeze" and len(awake) > 1:
            victim = random.choice(awake)
            victim.send_signal(signal.SIGSTOP)
            self._frozen[victim.pid] = time.monotonic() + FROZEN
        elif what == "kill" and len(awake) > 1:
            random.choice(awake).kill()
        else:
            return
        self.done[what] += 1

    def _thaw(self, now: float) -> None:
        for process in self._processes:
            if process.pid in self._frozen and now >= self._frozen[process.pid]:
                process.send_signal(signal.SIGCONT)
                del self._frozen[process.pid]

    def calm(self) -> None:
        """Everybody wakes up, and nobody is harmed any more."""
        self._thaw(float("inf"))

    def end(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@contextmanager
def fleet(database: str, logs: Path) -> Iterator[Fleet]:
    made = Fleet(database, logs)
    try:
        for _ in range(WORKERS):
            made.start()
        yield made
    finally:
        made.end()


def harassed(database: str, logs: Path, seconds: float) -> tuple[set[int], dict[str, int]]:
    """Ids of the jobs that were enqueued during `seconds` of harassment, and what was done."""
    rows(database, TABLES)
    ids: set[int] = set()
    with fleet(database, logs) as workers:
        until(lambda: value(database, "select count(*) from pgqueue.workers") == WORKERS, 60)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ids |= enqueued(database, 12)
            workers.harass(random.choice(("kill", "freeze", "freeze", "cut", "cut")))
            time.sleep(0.4)
        workers.calm()
        until(lambda: value(database, "select count(*) from pgqueue.jobs") == 0, 90)
        # A zombie that has just woken up gets the time to write what it still believes.
        time.sleep(2)
        done = workers.done
    return ids, done


def enqueued(database: str, count: int) -> set[int]:
    query = "select pgqueue.enqueue(task => %s, max_attempts => 4)"
    with psycopg.connect(database, autocommit=True) as connection:
        found = [connection.execute(query, [random.choice(TASKS)]) for _ in range(count)]
        return {row[0] for cursor in found for row in cursor}


def check(database: str, ids: set[int]) -> None:
    """Every promise, from what was recorded."""
    finished = rows(
        database, "select id, state, lease, attempt, max_attempts, task from pgqueue.finished_jobs"
    )
    assert len(finished) == len({job_id for job_id, *_ in finished}), "a job ended twice"
    assert {job_id for job_id, *_ in finished} == ids, "a job was lost, or came from nowhere"
    assert all(attempt <= most for _, _, _, attempt, most, _ in finished)
    noted: dict[str, set[tuple[int, int]]] = {"start": set(), "end": set(), "rejected": set()}
    starts = rows(database, "select job_id, lease, what from history")
    for job_id, lease, what in starts:
        noted[what].add((job_id, lease))
    started = [(job_id, lease) for job_id, lease, what in starts if what == "start"]
    assert len(started) == len(set(started)), "a handler was started twice under one lease"
    completed: dict[str, set[tuple[int, int]]] = {task: set() for task in TASKS}
    for job_id, state, lease, _, _, task in finished:
        if state == "completed":
            completed[task].add((job_id, lease))
    for task in TASKS:
        assert completed[task] <= noted["end"], f"{task} completed, and its handler had not ended"
    effects = rows(database, "select job_id, lease from effects")
    assert sorted(effects) == sorted(completed["effect"]), "effects differ from completions"
    stages = rows(database, "select job_id, lease from stages")
    assert len(stages) == len(set(stages)), "a stage was written twice under one lease"
    assert completed["stage"] <= set(stages)


def rejected(database: str) -> int:
    count: int = value(database, "select count(*) from history where what = 'rejected'")
    return count


@pytest.mark.timeout(180)
def test_fifteen_seconds_of_harassment_lose_and_double_nothing(
    database: str, tmp_path: Path
) -> None:
    ids, _ = harassed(database, tmp_path / "log", 12)
    check(database, ids)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_minute_of_harassment_loses_and_doubles_nothing_and_zombies_are_refused(
    database: str, tmp_path: Path, record_property: Any
) -> None:
    ids, done = harassed(database, tmp_path / "log", 60)
    check(database, ids)
    assert rejected(database) > 0, "no zombie ever tried to write"
    figures = {**done, "jobs": len(ids), "rejected": rejected(database)}
    for name, figure in figures.items():
        record_property(name, figure)
    print(figures)  # noqa: T201 - shown with -s

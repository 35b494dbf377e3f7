"""`pgq worker --processes N`: one command, several workers, and none left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from supervising import Supervisor, ask, is_gone, pids

from proving import rows as read
from proving import states, until, value

Run = Callable[..., Any]
HELD_BY = (
    "select count(*) from pgqueue.jobs join pgqueue.workers on workers.id = worker_id "
    "where workers.pid = %s"
)
SIGNALLED_AT_START = """
import signal
from pgqueue.events import WorkerStarted, subscribe
subscribe(lambda event: os.kill(os.getpid(), signal.SIGTERM), {WorkerStarted})
"""
RUNNING = "select count(*) from pgqueue.jobs where state = 'running'"


def test_each_process_is_a_worker_of_its_own_and_sigterm_stops_them_all(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str, pgq_process: Run
) -> None:
    running = start("worker", "--processes", "3", "--concurrency", "1", "--log-level", "debug")
    found = running.waits(lambda: len(p := pids(database)) == 3 and p)
    assert running.process.pid not in found
    assert pgq_process("worker", "check").code == 0
    enqueue(*[2.0] * 3)
    running.waits(lambda: value(database, RUNNING) == 3)
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0
    assert states(database) == {"completed": 3}
    assert len(read(database, "select distinct result from pgqueue.finished_jobs")) == 3
    assert pids(database) == []
    assert all(map(is_gone, found))
    assert [facts["processes"] for facts in running.told("supervisor started")] == [3]
    assert len(running.told("worker stopped")) == 3


def test_jobs_that_no_worker_knows_are_told_once_and_not_by_each_process(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    read(database, "insert into pgqueue.jobs (task, queue, payload) values ('later', 'q', '{}')")
    running = start("worker", "--processes", "2")
    running.waits(lambda: len(running.told("worker started")) == 2)
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0
    said = "due jobs wait for tasks that no live worker knows: later (1)"
    assert len(running.told(said)) == 1


def test_ctrl_c_hands_back_what_runs_and_costs_it_no_attempt(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start("worker", "--processes", "2", "--shutdown-timeout", "0")
    enqueue(*[600.0] * 4)
    running.waits(lambda: len(pids(database)) == 2 and value(database, RUNNING) == 4)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 0
    assert read(database, "select distinct state, attempt from pgqueue.jobs") == [("queued", 0)]
    assert [facts["reason"] for facts in running.told("worker is stopping")] == ["SIGINT"] * 2


def test_a_service_manager_that_signals_every_process_is_not_taken_for_impatient(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start()
    running.waits(lambda: len(pids(database)) == 2)
    enqueue(*[1.0] * 4)
    running.waits(lambda: value(database, RUNNING) == 4)
    for pid in [*pids(database), running.process.pid, *pids(database)]:
        os.kill(pid, signal.SIGTERM)
    assert running.ends() == 0
    assert states(database) == {"completed": 4}


def test_a_second_signal_leaves_at_once_even_if_a_handler_blocks_its_worker(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start("worker", "--processes", "2", "--shutdown-timeout", "600")
    enqueue(600.0, task="block")
    running.waits(lambda: len(pids(database)) == 2 and value(database, RUNNING) == 1)
    found = pids(database)
    running.process.send_signal(signal.SIGTERM)
    # The other one has nothing to do and leaves.
    running.waits(lambda: running.told("worker stopped"))
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 130
    assert time.monotonic() - began < 2
    assert all(map(is_gone, found))
    assert states(database) == {"running": 1}


def test_a_killed_process_is_started_again_and_its_jobs_are_run(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start("worker", "--processes", "2", "--concurrency", "5")
    first, second = running.waits(lambda: len(p := pids(database)) == 2 and p)
    enqueue(*[0.4] * 40)
    running.waits(lambda: value(database, HELD_BY, [first]))
    os.kill(first, signal.SIGKILL)
    (told,) = running.waits(
        lambda: running.told("worker process 1 was killed by SIGKILL and is started again")
    )
    assert (told["pid"], told["process"], told["level"]) == (first, 1, "error")
    assert 0.5 <= told["restart_in"] <= 1.0
    running.waits(lambda: len(found := set(pids(database)) - {first}) == 2 and second in found)
    running.waits(lambda: states(database) == {"completed": 40})
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0


def test_nothing_survives_a_killed_supervisor_and_others_run_its_jobs(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start("worker", "--processes", "2", "--concurrency", "2")
    found = running.waits(lambda: len(p := pids(database)) == 2 and p)
    enqueue(*[1.5] * 4)
    running.waits(lambda: value(database, RUNNING) == 4)
    running.process.kill()
    running.process.wait()
    until(lambda: all(map(is_gone, found)), within=5)
    assert states(database).get("running", 0) > 0
    other = start("worker")
    other.waits(lambda: states(database) == {"completed": 4})


def test_burst_ends_when_all_processes_are_done(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    enqueue(*[0.01] * 200)
    running = start("worker", "--processes", "2", "--burst")
    assert running.ends() == 0
    assert states(database) == {"completed": 200}
    assert pids(database) == []


def test_the_setting_counts_processes_and_one_is_the_plain_worker(
    start: Callable[..., Supervisor], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_PROCESSES", "2")
    supervised = start("worker")
    supervised.waits(lambda: len(pids(database)) == 2)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.ends() == 0
    plain = start("worker", "--processes", "1")
    plain.waits(lambda: pids(database) == [plain.process.pid])
    plain.process.send_signal(signal.SIGTERM)
    assert plain.ends() == 0
    assert plain.told("supervisor started") == []


def test_a_signal_that_comes_just_as_a_worker_starts_is_not_lost(
    start: Callable[..., Supervisor], folder: Path, app: str
) -> None:
    with (folder / f"{app}.py").open("a", encoding="utf-8") as module:
        module.write(SIGNALLED_AT_START)
    running = start()
    told = running.waits(lambda: running.told("worker is stopping"))
    assert told[0]["reason"] == "SIGTERM"


def test_one_address_answers_for_all_processes(
    start: Callable[..., Supervisor], enqueue: Callable[..., None], database: str
) -> None:
    running = start("worker", "--processes", "2", "--health-port", "0")
    running.waits(lambda: len(running.told("worker started")) == 2)
    url = running.told("supervisor started")[0]["health"]
    running.waits(lambda: ask(url, "/readyz") == (200, []))
    assert ask(url, "/healthz") == (200, [])
    first, second = pids(database)
    os.kill(second, signal.SIGSTOP)
    status, reasons = ask(url, "/healthz")
    assert (status, len(reasons)) == (503, 1)
    assert reasons[0].startswith(f"process 2 (pid {second}) does not answer")
    os.kill(second, signal.SIGKILL)
    manner = "process 2 was killed by SIGKILL and is started again"
    running.waits(lambda: ask(url, "/readyz") == (503, [manner]))
    assert ask(url, "/healthz") == (200, [])
    running.waits(lambda: ask(url, "/readyz") == (200, []))
    enqueue(600.0)
    running.waits(lambda: value(database, RUNNING) == 1)
    running.process.send_signal(signal.SIGTERM)
    status, reasons = running.waits(lambda: (a := ask(url, "/readyz"))[0] == 503 and a)
    assert any(reason.endswith("stopping: SIGTERM") for reason in reasons)
    assert first not in {second, running.process.pid}


def test_a_process_dies_with_its_supervisor_also_where_the_kernel_does_not_see_to_it() -> None:
    ours, theirs = socket.socketpair()
    program = (
        "import signal, sys\n"
        "from pgqueue.worker.supervised import SupervisorLine\n"
        "sys.platform = 'elsewhere'\n"
        "SupervisorLine(int(sys.argv[1]))\n"
        "print('here', flush=True)\n"
        "signal.pause()\n"
    )
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno())],
            stdout=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()


def test_up_migrates_and_supervises(
    start: Callable[..., Supervisor], empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", empty_database)
    running = start("up", "--processes", "2")
    running.waits(lambda: len(running.told("worker started")) == 2)
    assert len(running.told("database is migrated")) == 1
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0


def test_a_process_that_cannot_start_again_is_tried_more_and_more_seldom(
    start: Callable[..., Supervisor], folder: Path, app: str, database: str
) -> None:
    running = start()
    first, second = running.waits(lambda: len(p := pids(database)) == 2 and p)
    module = folder / f"{app}.py"
    text = module.read_text(encoding="utf-8")
    module.write_text("raise SystemExit(3)\n", encoding="utf-8")
    os.kill(second, signal.SIGKILL)
    again = "worker process 2 left with exit code 2 and is started again"

    def told() -> list[dict[str, Any]]:
        lines = [line for line in running.said.splitlines() if line.startswith("{")]
        return [facts for facts in map(json.loads, lines) if facts["event"] == again]

    running.waits(lambda: len(told()) == 2)
    assert [facts["process"] for facts in told()] == [2, 2]
    shortest = [0.5 * 2**failures / 2 for failures in (2, 3)]
    assert all(
        least <= facts["restart_in"] <= 2 * least
        for least, facts in zip(shortest, told(), strict=True)
    )
    module.write_text(text, encoding="utf-8")
    running.waits(lambda: len({*pids(database)} - {first, second}) == 1)
    assert running.process.poll() is None

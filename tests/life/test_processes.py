"""Handlers in processes of their own: killed for good, and dying without harm to the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import process_tasks
import psycopg
import pytest

from pgqueue import ConfigError, Job, PgQueue, Retry
from pgqueue.events import LeasesLost
from proving import Recorder, rows, until, value

pytest.importorskip("pebble", reason='isolation="process" needs the extra `process`')

MEMORY = 2_000_000_000
RUNNING = "select count(*) from pgqueue.jobs where state = 'running'"


@pytest.fixture
def app(pgq: PgQueue) -> PgQueue:
    process_tasks.registered(pgq)
    return pgq


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


async def written(path: Path) -> int:
    text = await asyncio.to_thread(until, lambda: path.exists() and path.read_text())
    return int(text)


async def ended(database: str, job: Job, within: float = 20.0) -> tuple[str, dict[str, Any]]:
    """State and last error of a job, once it has ended."""
    query = "select state, errors -> -1 from pgqueue.finished_jobs where id = %s"
    found = await asyncio.to_thread(until, lambda: rows(database, query, [job.id]), within)
    return found[0]


async def test_the_result_comes_back_and_the_process_is_used_again(
    app: PgQueue, working: Any
) -> None:
    async with working():
        first = await app.enqueue("add", {"a": 1, "b": 2}).aresult(20)
        second = await app.enqueue("add", {"a": 3, "b": 4}).aresult(20)
    assert (first["sum"], second["sum"]) == (3, 7)
    assert first["pid"] == second["pid"] != os.getpid()


async def test_a_child_that_dies_as_it_is_handed_a_job_does_not_keep_it(
    app: PgQueue, working: Any, database: str
) -> None:
    async with working():
        first = await app.enqueue("add", {"a": 1, "b": 2}).aresult(20)
        os.kill(first["pid"], signal.SIGSTOP)  # it reads nothing more
        job = app.enqueue("add", {"a": 3, "b": 4})
        await asyncio.to_thread(until, lambda: value(database, RUNNING))
        await asyncio.sleep(0.5)  # by then the job lies in its pipe; sooner, it is given to another
        os.kill(first["pid"], signal.SIGKILL)
        second = await job.aresult(20)
    assert second["sum"] == 7
    assert second["pid"] != first["pid"]


@pytest.mark.parametrize("task", ["hang", "hang-in-c"])
async def test_a_timeout_kills_the_process_within_a_second(
    app: PgQueue, working: Any, database: str, tmp_path: Path, task: str
) -> None:
    file = tmp_path / "pid"
    async with working():
        await app.enqueue("add", {"a": 1, "b": 1}).aresult(20)  # the child is up
        job = app.enqueue(task, {"pid_file": str(file)}, timeout=0.5)
        pid = await written(file)
        began = time.monotonic()
        state, error = await ended(database, job)
        assert time.monotonic() - began < 0.5 + 1.0
        assert not lives(pid)
    assert (state, error["reason"]) == ("failed", "timeout")


@pytest.mark.parametrize("task", ["hang", "hang-in-c"])
async def test_a_cancelled_job_is_dead_within_a_second(
    app: PgQueue, working: Any, database: str, tmp_path: Path, task: str
) -> None:
    file = tmp_path / "pid"
    async with working():
        job = app.enqueue(task, {"pid_file": str(file)})
        pid = await written(file)
        began = time.monotonic()
        app.cancel(job.id)
        await asyncio.to_thread(until, lambda: not lives(pid))
        assert time.monotonic() - began < 1.0
        state, error = await ended(database, job)
    assert (state, error["reason"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("death", "manner"),
    [
        (("die-by", {"number": signal.SIGKILL}), "was killed by SIGKILL"),
        (("die-by", {"number": signal.SIGABRT}), "was killed by SIGABRT"),
        (("overflow", {}), "was killed by SIGSEGV"),
        (("leave", {"code": 7}), "left with exit code 7"),
        (("leave", {"code": 0}), "left with exit code 0"),
    ],
)
async def test_a_process_that_dies_fails_its_try_and_the_worker_lives_on(
    app: PgQueue,
    working: Any,
    database: str,
    death: tuple[str, dict[str, int]],
    manner: str,
) -> None:
    async with working():
        state, error = await ended(database, app.enqueue(*death))
        assert (await app.enqueue("add", {"a": 1, "b": 1}).aresult(20))["sum"] == 2
    assert (state, error["reason"]) == ("failed", "crashed")
    assert error["message"] == f"the handler's process {manner}"


async def test_a_crash_counts_as_a_failed_try(pgq: PgQueue, working: Any, database: str) -> None:
    pgq.task(isolation="process", retry=Retry(attempts=3, delays=[0]))(process_tasks.leave)
    async with working():
        job = pgq.enqueue("leave", {"code": 3})
        await ended(database, job)
    query = "select attempt, jsonb_path_query_array(errors, '$[*].reason') from pgqueue.all_jobs"
    assert rows(database, query) == [(3, ["crashed"] * 3)]


async def test_a_memory_limit_fails_the_try_that_wants_more(
    pgq: PgQueue, working: Any, database: str
) -> None:
    pgq.task(isolation="process", memory_limit=MEMORY)(process_tasks.grab)
    async with working():
        assert await pgq.enqueue("grab", {"size": 1_000_000}).aresult(20) == 1_000_000
        state, error = await ended(database, pgq.enqueue("grab", {"size": MEMORY}))
        assert await pgq.enqueue("grab", {"size": 1_000_000}).aresult(20) == 1_000_000
    assert (state, error["reason"]) == ("failed", "crashed")
    assert "ran out of memory: its limit is 2,000,000,000 bytes" in error["message"]


async def test_errors_verdicts_and_bad_results_mean_what_they_mean_in_a_thread(
    app: PgQueue, working: Any, database: str
) -> None:
    async with working():
        _, cold = await ended(database, app.enqueue("freeze", {"degrees": -3}))
        _, local = await ended(database, app.enqueue("unpicklable"))
        _, bad = await ended(database, app.enqueue("not-json"))
        snoozed = app.enqueue("snooze")
        query = "select 1 from pgqueue.jobs where id = %s and run_at > now() + interval '59 min'"
        await asyncio.to_thread(until, lambda: rows(database, query, [snoozed.id]))
    assert (cold["reason"], cold["type"]) == ("exception", "TooCold")
    assert cold["message"] == "only -3 degrees"
    assert "process_tasks.py" in cold["traceback"]
    assert "raise TooCold(degrees)" in cold["traceback"]
    assert local["type"].endswith("Local")
    assert local["message"] == "from inside"
    assert bad["reason"] == "bad-result"


async def test_policies_see_the_exception_itself(pgq: PgQueue, working: Any, database: str) -> None:
    seen: list[Any] = []

    def decide(_: int, error: BaseException) -> float | None:
        seen.append(error)
        return None

    retry = Retry(attempts=2, decide=decide)
    pgq.task(isolation="process", retry=retry)(process_tasks.freeze)
    async with working():
        await ended(database, pgq.enqueue("freeze", {"degrees": -9}))
    assert isinstance(seen[0], process_tasks.TooCold)
    assert seen[0].degrees == -9


async def test_progress_and_log_lines_of_a_process_arrive(
    app: PgQueue, working: Any, database: str
) -> None:
    async with working():
        job = app.enqueue("talk")
        await job.aresult(20)
    assert value(database, "select progress ->> 'percent' from pgqueue.finished_jobs") == "100"
    assert rows(database, "select level, message from pgqueue.job_logs") == [("warning", "halfway")]


async def test_a_transaction_of_a_process_commits_with_its_lease_and_not_without(
    app: PgQueue, working: Any, database: str, recorder: Recorder
) -> None:
    rows(database, "create table effects (n int)")
    async with working():
        await app.enqueue("effect", {"n": 1}).aresult(20)
        app.enqueue("effect-of-the-robbed", {"n": 2})
        await recorder.await_(LeasesLost)
    assert rows(database, "select n from effects") == [(1,)]


async def test_a_worker_that_stops_hands_back_and_leaves_no_process(
    app: PgQueue, working: Any, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    async with working():
        app.enqueue("hang", {"pid_file": str(file)})
        pid = await written(file)
    assert not lives(pid)
    assert rows(database, "select state, attempt from pgqueue.jobs") == [("queued", 0)]


async def test_a_fenced_worker_kills_its_processes_within_a_second(
    app: PgQueue, working: Any, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    async with working() as worker:
        app.enqueue("hang", {"pid_file": str(file)})
        pid = await written(file)
        began = time.monotonic()
        worker.fence(9.0)
        await asyncio.to_thread(until, lambda: not lives(pid))
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("end", ["timeout", "cancel", "crash", "leave"])
async def test_what_a_handler_started_dies_with_its_try(
    app: PgQueue, working: Any, database: str, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "pid"
    task = "die-and-leave-a-process" if end == "crash" else "with-a-process-of-its-own"
    async with working():
        await app.enqueue("add", {"a": 1, "b": 1}).aresult(20)  # the child is up
        timeout = 0.5 if end == "timeout" else None
        job = app.enqueue(task, {"pid_file": str(file)}, timeout=timeout)
        pid = await written(file)
        if end == "cancel":
            app.cancel(job.id)
        if end != "leave":
            await ended(database, job)
            await asyncio.to_thread(until, lambda: not lives(pid), 1.0)
    await asyncio.to_thread(until, lambda: not lives(pid), 1.0)


async def test_a_handler_has_no_children_but_its_own(app: PgQueue, working: Any) -> None:
    async with working():
        assert await app.enqueue("wait-for-children").aresult(20) == 0


@pytest.fixture
def worker_process(database: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PGQUEUE_DATABASE_URL": database,
        "PGQUEUE_LIFE_APP": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    options = ["--app", "process_tasks:pgq", "--shutdown-timeout", "0", "--no-scheduler"]
    command = [sys.executable, "-m", "cli", "worker", *options]
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("task", ["hang", "hang-in-c", "with-a-process-of-its-own"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_worker_that_is_ended_by_a_signal(
    app: PgQueue,
    worker_process: subprocess.Popen[bytes],
    tmp_path: Path,
    task: str,
    number: signal.Signals,
) -> None:
    file = tmp_path / "pid"
    app.enqueue(task, {"pid_file": str(file)})
    pid = int(until(lambda: file.exists() and file.read_text()))
    worker_process.send_signal(number)
    worker_process.wait(20)
    until(lambda: not lives(pid), within=1.0)


def test_what_cannot_run_in_a_process_is_refused(pgq: PgQueue) -> None:
    def local() -> None: ...

    async def coroutine() -> None: ...

    refused: list[tuple[Any, dict[str, Any], str]] = [
        (local, {"isolation": "process"}, "needs a function at the top level of a module"),
        (lambda: None, {"isolation": "process", "name": "l"}, "at the top level of a module"),
        (coroutine, {"isolation": "process"}, "an async function runs in the event loop"),
        (local, {"isolation": "fork"}, "isolation 'fork' is not valid: thread, process"),
        (local, {"memory_limit": 10}, 'memory_limit needs isolation="process"'),
        (process_tasks.add, {"isolation": "process", "memory_limit": 0}, "memory_limit 0 is not"),
    ]
    for function, options, message in refused:
        with pytest.raises(ConfigError, match=message):
            pgq.task(**options)(function)


def transactional(connection: psycopg.Connection[Any]) -> None: ...


def test_a_connection_cannot_go_into_a_process(pgq: PgQueue) -> None:
    task = pgq.task(isolation="process")(transactional)
    with pytest.raises(ConfigError, match="a connection cannot go into another process"):
        task.enqueue()


async def test_a_worker_refuses_a_task_that_its_module_hides(pgq: PgQueue) -> None:
    def add() -> None: ...

    add.__qualname__, add.__module__ = "add", "process_tasks"
    pgq.task(isolation="process")(add)
    with pytest.raises(ConfigError, match=r"is not what process_tasks\.add holds"):
        await pgq.worker().run()


def test_a_program_without_a_guard_is_told_so_and_no_child_becomes_a_worker(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "tasks_of_mine.py").write_text(
        "from pgqueue import PgQueue\npgq = PgQueue()\n"
        "@pgq.task(isolation='process')\ndef one() -> int: return 1\n"
    )
    (tmp_path / "unguarded.py").write_text(
        "import asyncio\nfrom tasks_of_mine import pgq\n"
        "asyncio.run(pgq.worker(scheduler=False).run())\n"
    )
    rows(database, "select pgqueue.enqueue('one')")
    program = subprocess.Popen(
        [sys.executable, "unguarded.py"],
        cwd=tmp_path,
        env={**os.environ, "PGQUEUE_DATABASE_URL": database},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stderr is not None
        told = next(line for line in program.stderr if "__main__" in line and "ConfigError" in line)
        assert "put what starts it under" in told
        assert value(database, "select count(*) from pgqueue.workers") == 1
    finally:
        program.kill()
        program.communicate()

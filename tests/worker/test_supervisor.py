"""What a supervisor does with processes that are odd; the whole command stands in tests/cli."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from pgqueue.errors import WorkerNotStarted
from pgqueue.events import SupervisorStarted, WorkerProcessEnded
from pgqueue.worker.supervisor import Supervisor, SupervisorOptions, WorkerProcess
from proving import Recorder

SAYS_STARTED = "import os, sys; os.write(int(sys.argv[-1]), b'{\"health\": null}\\n'); "


def python(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


def options(**changed: Any) -> SupervisorOptions:
    return SupervisorOptions(**{"processes": 2, "burst": True, "shutdown_timeout": 5.0, **changed})


async def test_what_an_app_forked_does_not_hide_that_its_process_has_died() -> None:
    forks = "import os, time\nif os.fork() == 0:\n    time.sleep(20)\nelse:\n    os._exit(3)"
    process = WorkerProcess(1, python(forks))
    async with asyncio.timeout(10):
        assert await process.run() == 3
    os.killpg(process.pid, signal.SIGKILL)


async def test_words_before_the_death_are_heard() -> None:
    process = WorkerProcess(1, python(SAYS_STARTED + "os._exit(0)"))
    assert await process.run() == 0
    assert process.started.is_set()


async def test_a_command_that_is_not_there_is_not_tried_again() -> None:
    with pytest.raises(WorkerNotStarted, match=r"could not be started: .* No such file"):
        await Supervisor(["/no/such/python"], options()).run()


async def test_a_machine_that_starts_no_more_processes_costs_nobody_his_life(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(python(SAYS_STARTED + "import time; time.sleep(2)"), options())
    spawn, calls = asyncio.create_subprocess_exec, []

    async def spawn_but_once(*command: Any, **how: Any) -> Any:
        calls.append(command)
        if len(calls) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(*command, **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn_but_once)
    assert await supervisor.run() == 0
    assert [event.processes for event in recorder.of(SupervisorStarted)] == [2]
    (told,) = recorder.of(WorkerProcessEnded)
    assert told.manner == "could not be started: [Errno 11] Resource temporarily unavailable"
    assert len(calls) == 3


async def test_a_process_that_does_not_leave_in_time_is_killed_and_told(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgqueue.worker.supervisor.GRACE", 0.2)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    program = stubborn + SAYS_STARTED + "time.sleep(60)"
    running = asyncio.create_task(Supervisor(python(program), options(shutdown_timeout=0.0)).run())
    await recorder.await_(SupervisorStarted)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 1
    ended = recorder.of(WorkerProcessEnded)
    assert {(event.manner, event.restart_in) for event in ended} == {
        ("was killed by SIGKILL", None)
    }


def test_the_waits_between_deaths_grow_to_half_a_minute_and_begin_anew_after_a_steady_one() -> None:
    process = WorkerProcess(1, ["unused"])
    waits = [process.wait_before_next(1.0) for _ in range(10)]
    longest = [min(30.0, 0.5 * 2**number) for number in range(1, 11)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert process.wait_before_next(61.0) <= 0.5

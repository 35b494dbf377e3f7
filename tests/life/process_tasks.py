"""Handlers that run in child processes; a child finds them here by module and name."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

from pgqueue import Job, PgQueue, Snooze


class TooCold(Exception):
    """Its constructor takes something else than its message."""

    def __init__(self, degrees: int) -> None:
        self.degrees = degrees
        super().__init__(f"only {degrees} degrees")


def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b, "pid": os.getpid()}


def hang(pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def hang_in_c(pid_file: str) -> None:
    """Holds the interpreter lock, so that no Python signal handler runs."""
    Path(pid_file).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


def with_a_process_of_its_own(pid_file: str) -> None:
    own = subprocess.Popen(["sleep", "600"])
    Path(pid_file).write_text(str(own.pid))
    own.wait()


def die_and_leave_a_process(pid_file: str) -> None:
    Path(pid_file).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_children() -> int:
    """All that have ended are waited for; one that we do not know would be waited for, too."""
    try:
        return os.waitpid(-1, 0)[0]
    except ChildProcessError:
        return 0


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def overflow() -> None:
    ctypes.string_at(0)


def grab(size: int) -> int:
    return len(bytearray(size))


def freeze(degrees: int) -> None:
    raise TooCold(degrees)


def snooze() -> None:
    raise Snooze(3600)


def unpicklable() -> None:
    class Local(Exception):
        pass

    raise Local("from inside")


def not_json() -> object:
    return object()


def talk(job: Job) -> None:
    for percent in range(0, 101, 20):
        job.progress(percent, f"at {percent}")
    job.log("halfway", "warning")


def effect(n: int, job: Job) -> None:
    with job.transaction() as connection:
        connection.execute("insert into effects (n) values (%s)", [n])


def effect_of_the_robbed(n: int, job: Job) -> None:
    with job.transaction() as connection:
        connection.execute("insert into effects (n) values (%s)", [n])
        with job._handle.pools.connection() as other:  # type: ignore[union-attr]
            other.execute("update pgqueue.jobs set lease = lease + 1 where id = %s", [job.id])


EVERY = (
    add, hang, hang_in_c, die_by, leave, overflow, grab, freeze, snooze, unpicklable, not_json,
    talk, effect, effect_of_the_robbed, with_a_process_of_its_own, die_and_leave_a_process,
    wait_for_children,
)  # fmt: skip


def registered(pgq: PgQueue, **options: object) -> None:
    for function in EVERY:
        pgq.task(isolation="process", **options)(function)  # type: ignore[call-overload]


def app() -> PgQueue:
    pgq = PgQueue()
    registered(pgq)
    return pgq


if "PGQUEUE_LIFE_APP" in os.environ:
    pgq = app()

SIGKILL, SIGTERM = signal.SIGKILL, signal.SIGTERM

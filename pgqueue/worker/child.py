"""What runs in the child process of a task with `isolation="process"`.

The child finds the handler by module and name, runs it and sends back plain values: the parent
decides what they mean. It does not outlive its parent, however that one ends.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pgqueue.db.pools import Pools
from pgqueue.db.run import run
from pgqueue.engine.claim import ClaimedJob
from pgqueue.engine.finish import prove_lease
from pgqueue.engine.notes import LogLine, Note, Progress
from pgqueue.engine.steps import StepBook
from pgqueue.sql import load
from pgqueue.tasks.parents import find_parents
from pgqueue.tasks.payload import Signature, signature_of
from pgqueue.tasks.running import Keeping, RunningJob, Ways
from pgqueue.tasks.task import Task
from pgqueue.worker.hand import Try
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.results import completed, json_of, said_by
from pgqueue.worker.supervised import die_with_parent

# Waits for the worker's end, then kills the child's group. Not a child of the child, or a handler
# that waits for all of its children would wait for this one.
_GUARD = 'exec 3<&0; { read -r _; kill -9 "-$1"; } <&3 &'

BORN = "born"
"""The first word of a child, with its process id, which is its group's, too."""

CONNECTIONS = 2
"""Connections a child opens at most, at the first `job.transaction()`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One try: where the handler stands, the job, and the way to the database."""

    module: str
    function: str
    job: ClaimedJob
    conninfo: str
    schema: str
    memory_limit: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a try ended that did not kill its process: a result as JSON, or an error."""

    result: str | None = None
    error: bytes | None = None
    """The exception, pickled; None where it cannot be."""
    error_type: str = ""
    message: str = ""
    trace: str = ""
    out_of_memory: bool = False
    database_lost: bool = False


class _Home:
    """What the child was born with."""

    line: socket.socket


def enter(line: socket.socket) -> None:
    """The first thing a child does; `line` leads to the parent."""
    _Home.line = line
    # A group of its own: what the handler starts ends with it.
    os.setsid()
    _say([BORN, os.getpid()])
    _start_guard()
    # Also while a handler holds the interpreter lock, when the thread below cannot run.
    die_with_parent()
    threading.Thread(target=_die_with_parent, name="pgqueue-parent", daemon=True).start()


def _start_guard() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    guard = ["/bin/sh", "-c", _GUARD, "sh", str(os.getpid())]
    quiet = subprocess.DEVNULL
    with suppress(OSError):  # no shell in this image: the kernel still ends the child itself
        subprocess.run(guard, stdin=parent.sentinel, stdout=quiet, stderr=quiet, check=False)  # noqa: S603 - ours


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def call(asked: Call) -> Answer:
    """Run the handler; the parent's notepad hears its notes before this returns."""
    _say(["started", os.getpid()])
    job = asked.job
    sql = load("pgqueue.sql", asked.schema)
    tries = {(job.id, job.lease)}
    running = _running_job(job, sql, asked.conninfo, tries)
    try:
        with _limited(asked.memory_limit):
            function, signature = _found(asked)
            arguments = signature.arguments(job.payload)
            if signature.job_parameter:
                arguments[signature.job_parameter] = job.job(running)
            if signature.parents_parameter:
                steps = find_parents(sql, job.task, job.id, signature.parents_kind)
                with _pools(asked.conninfo).connection() as connection:
                    arguments[signature.parents_parameter] = run(connection, steps)
            return Answer(completed(job, function(**arguments)).result)
    except BaseException as error:  # noqa: BLE001 - told to the parent, SystemExit, too
        if isinstance(error, MemoryError) and asked.memory_limit is not None:
            return Answer(out_of_memory=True)
        return _told(error, running)
    finally:
        tries.clear()


def _running_job(
    job: ClaimedJob, sql: Mapping[str, str], conninfo: str, tries: Container[Try]
) -> RunningJob:
    prove, keeping = partial(prove_lease, sql), Keeping(StepBook(sql), json_of)
    ways = Ways(_pools(conninfo), prove, _LineToParent(), keeping, tries.__contains__)
    return RunningJob(job.id, job.lease, ways)


@cache
def _pools(conninfo: str) -> Pools:
    # The worker that started this child has checked the database's version.
    return Pools(lambda: conninfo, lambda _: None, CONNECTIONS)


def _found(asked: Call) -> tuple[Any, Signature]:
    found = getattr(importlib.import_module(asked.module), asked.function)
    if isinstance(found, Task):
        return found.function, found.signature
    return found, signature_of(asked.job.task, found)


@contextmanager
def _limited(memory: int | None) -> Iterator[None]:
    if memory is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _told(error: BaseException, running: RunningJob) -> Answer:
    return Answer(
        error=_pickled(error),
        error_type=type(error).__qualname__,
        message=said_by(error),
        trace="".join(traceback.format_exception(error)),
        database_lost=running.database_lost,
    )


def _pickled(error: BaseException) -> bytes | None:
    """The exception as bytes that were seen to come to life again, or None.

    Not by its own __reduce__: that calls the class with `args`, which fails for every exception
    whose constructor takes something else than the message.
    """
    for state in (vars(error), {}):
        try:
            data = pickle.dumps((type(error), error.args, state))
            revived(data)
        except Exception:  # noqa: BLE001, S112 - whatever cannot be pickled goes as text
            continue
        return data
    return None


def revived(data: bytes) -> BaseException:
    """The exception of `Answer.error`; raises whatever unpickling raises."""
    kind, args, state = pickle.loads(data)  # noqa: S301 - written by our own child
    error: BaseException = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _say(words: list[Any]) -> None:
    _Home.line.send(json.dumps(words, ensure_ascii=False).encode("utf-8"))


class _LineToParent(Notepad):
    """Checks what is said here, where the handler sees the error, and sends it to the parent."""

    def add(self, note: Note) -> None:
        if isinstance(note, Progress):
            _say(["progress", note.job_id, note.lease, note.percent, note.message])
        else:
            _say(["log", note.job_id, note.lease, note.said_at, note.level, note.message])


def note_of(words: list[Any]) -> Note | None:
    """The note that a child sent; None for its word that it has started."""
    match words:
        case ["progress", job_id, lease, percent, message]:
            return Progress(job_id, lease, percent, message)
        case ["log", job_id, lease, said_at, level, message]:
            return LogLine(job_id, lease, said_at, level, message)
        case _:
            return None

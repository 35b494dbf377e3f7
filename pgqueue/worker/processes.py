"""Runs handlers in child processes, which can be killed and may die.

Each slot is a pool of one process (pebble): what kills one child disturbs no other. Children are
spawned, not forked, because the worker has threads, and they are used again until one is killed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pgqueue.engine.claim import ClaimedJob
from pgqueue.errors import ConfigError, ExtraMissing, HandlerCrashed
from pgqueue.events import DutyFailed, emit
from pgqueue.tasks.running import RunningJob
from pgqueue.tasks.task import Task
from pgqueue.worker.child import BORN, Answer, Call, call, enter, note_of, revived
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.supervised import manner_of

if TYPE_CHECKING:
    from pebble import ProcessFuture, ProcessPool

TERM_TIMEOUT = 0.3
"""Seconds between SIGTERM and SIGKILL: a cancelled job is to be over within a second."""

STARTS = 3
"""Fresh children tried for one job before it is put back; they died before its handler began."""

LOOK_EVERY = 1.0
"""Seconds between looks whether the child still lives: pebble takes no notice of one that leaves
with exit code 0, and its job would run for ever."""


class NotStarted(Exception):
    """No child could be started, or it was asked to end together with the worker."""


class _LeftQuietly(Exception):
    """The child ended by itself with exit code 0 and gave no answer."""

    exitcode = 0


class _ChildTraceback(Exception):
    """Shows, as the cause of an error, where in the child it arose."""


class Processes:
    """The children of one worker; all methods belong to its event loop."""

    def __init__(self, conninfo: Callable[[], str], schema: str, notepad: Notepad) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._notepad = notepad
        self._idle: list[_Slot] = []
        self._busy: set[_Slot] = set()
        # The kernel ends a child with the thread that started it, so that one has to stay.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="pgqueue-spawn")
        self.stopping = False
        """True once the worker stops: a child that SIGTERM ends then is no crash."""

    def check(self, task: Task[Any]) -> None:
        """Raises ExtraMissing, or ConfigError for a task that a child could not find."""
        try:
            import pebble  # noqa: PLC0415 - an extra
        except ImportError:
            raise ExtraMissing('isolation="process"', "process") from None
        pebble.CONSTS.term_timeout = TERM_TIMEOUT
        module, name = task.function.__module__, task.function.__qualname__
        found = getattr(sys.modules.get(module), name, None)
        if found is not task and found is not task.function:
            raise ConfigError(
                f'task {task.name!r} with isolation="process" is not what {module}.{name} holds: '
                "a child process has to find it under that name"
            )

    async def run(self, task: Task[Any], job: ClaimedJob, running: RunningJob) -> str | None:
        """Run the handler in a child; returns its result as JSON.

        Raises what the handler raised, HandlerCrashed when its process died, NotStarted when it
        never began. Cancelling kills the process and waits for its end.
        """
        conninfo = await asyncio.to_thread(self._conninfo)
        function = task.function
        limit = task.memory_limit
        asked = Call(function.__module__, function.__qualname__, job, conninfo, self._schema, limit)
        for _ in range(STARTS):
            try:
                answer = await self._answer(asked)
            except BrokenProcessPool:
                continue
            running.database_lost = answer.database_lost
            return _value_of(answer, limit)
        reason = f"{STARTS} child processes died before the handler of {task.name} began"
        emit(DutyFailed("processes", reason))
        raise NotStarted(reason)

    async def close(self) -> None:
        """End all children, whatever they do."""
        slots = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(self._kill(slot) for slot in slots))
        self._starter.shutdown(wait=False)

    async def _answer(self, asked: Call) -> Answer:
        slot = self._idle.pop() if self._idle else _Slot(self._notepad, self._starter)
        self._busy.add(slot)
        try:
            answer = await slot.ask(asked)
        except BaseException as error:  # noqa: BLE001 - always raised again
            await self._kill(slot)
            raise self._judged(error, slot) from None
        self._busy.discard(slot)
        if answer.out_of_memory:
            await self._kill(slot)
        else:
            self._idle.append(slot)
        return answer

    async def _kill(self, slot: _Slot) -> None:
        killing = asyncio.create_task(slot.close())
        # A second cancel must not let the job end before its process has.
        while not killing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(killing)
        self._busy.discard(slot)

    def _judged(self, error: BaseException, slot: _Slot) -> BaseException:
        code = getattr(error, "exitcode", None)
        if code is None and not isinstance(error, BrokenProcessPool):
            return error
        if not slot.started:
            return BrokenProcessPool()
        # Pebble's handler turns the signal into an exit code.
        if self.stopping and code is not None and abs(code) == signal.SIGTERM:
            return NotStarted("the process was asked to end together with the worker")
        return HandlerCrashed("died" if code is None else manner_of(code))


class _Slot:
    """One child process and the line on which it sends notes."""

    def __init__(self, notepad: Notepad, starter: ThreadPoolExecutor) -> None:
        from pebble import ProcessPool  # noqa: PLC0415 - an extra

        self._notepad = notepad
        self._starter = starter
        # Datagrams arrive whole or not at all, also from a process that is killed as it writes.
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.settimeout(0)
        asyncio.get_running_loop().add_reader(self._ours, self._listen)
        self._pool: ProcessPool = ProcessPool(
            1,
            initializer=enter,
            initargs=(self._theirs,),
            context=multiprocessing.get_context("spawn"),
        )
        self._future: ProcessFuture[Answer] | None = None
        self._groups: set[int] = set()
        self._pid: int | None = None
        """The child: the one that was born last, until one says that it has begun."""
        self.started = False
        """Whether the child has begun with the job that it was given."""

    async def ask(self, asked: Call) -> Answer:
        """Let the child run it; raises ProcessExpired or BrokenProcessPool when it died."""
        self.started = False
        loop = asyncio.get_running_loop()
        try:
            schedule = self._pool.schedule
            self._future = await loop.run_in_executor(self._starter, schedule, call, (asked,))
        except RuntimeError as error:  # it died while it had nothing to do
            raise BrokenProcessPool from error
        try:
            return await self._answered(asyncio.wrap_future(self._future))
        finally:
            # What the child said before it answered is here already.
            self._listen()

    async def _answered(self, future: asyncio.Future[Answer]) -> Answer:
        # Waited for, not awaited: only close() ends the child, and a cancel must not before that.
        # Looked at, so that asyncio does not report what became of one that nobody waits for.
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        was_gone = False
        while not (await asyncio.wait({future}, timeout=LOOK_EVERY))[0]:
            if was_gone:
                raise _LeftQuietly
            was_gone = self._is_gone()
        return future.result()

    def _is_gone(self) -> bool:
        if self._pid is None:
            return False
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:  # pebble has collected it
            return True
        return False

    async def close(self) -> None:
        """Kill the child (SIGTERM, then SIGKILL), then what it started; return when it is gone."""
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble's own gap
        if self._future is not None:
            self._future.cancel()  # type: ignore[no-untyped-call]  # pebble's own gap
        await asyncio.to_thread(self._pool.join)
        self._listen()
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self._theirs.close()

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while True:
                words = json.loads(self._ours.recv(1 << 17))
                if words[0] == BORN:
                    self._groups.add(words[1])
                    self._pid = words[1]
                    continue
                if not self.started:
                    self.started, self._pid = True, words[1]
                if note := note_of(words):
                    self._notepad.add(note)


def _value_of(answer: Answer, memory_limit: int | None) -> str | None:
    if answer.out_of_memory:
        raise HandlerCrashed(f"ran out of memory: its limit is {memory_limit:,} bytes")
    if not answer.error_type:
        return answer.result
    raise _error_of(answer) from _ChildTraceback(f"\n{answer.trace}")


def _error_of(answer: Answer) -> BaseException:
    if answer.error is not None:
        # A class may exist in the child only.
        with suppress(Exception):
            return revived(answer.error)
    stand_in: BaseException = type(answer.error_type, (Exception,), {})(answer.message)
    return stand_in

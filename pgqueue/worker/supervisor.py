"""Keeps several worker processes running: starts them, starts them again, stops them together.

Each process is a worker of its own, with its own row and heart. They are spawned, not forked, and
none outlives the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from pgqueue.errors import WorkerNotStarted
from pgqueue.events import SupervisorStarted, WorkerProcessEnded, emit
from pgqueue.worker.health import AnswerServer
from pgqueue.worker.shutdown import HURRIED_EXIT
from pgqueue.worker.supervised import manner_of
from pgqueue.worker.waiting import set_within

LINE_OPTION = "--supervisor-line"
"""How a process is told the number of its end of the line."""

NUMBER_OPTION = "--process-number"

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
STEADY = 60.0
"""Seconds after which a process that ran counts as healthy: its next death is a first one."""

GRACE = 12.0
"""Seconds beyond the shutdown timeout: what a worker itself takes at most to cancel and leave."""

LAST_WORDS = 0.2
ASK_TIMEOUT = 2.0
UNCLEAN = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """`shutdown_timeout` in seconds; without a `health_port` nothing listens."""

    processes: int
    burst: bool
    shutdown_timeout: float
    health_host: str = "127.0.0.1"
    health_port: int | None = None


class WorkerProcess:
    """One place among the processes, and who is in it."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.pid = 0
        self.health: str | None = None
        """Where the running worker answers; None before it has started."""
        self.absence = "has not started yet"
        """Why no worker runs here; empty while one does."""
        self.started = asyncio.Event()
        """Set for good when a worker has started here for the first time."""
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._asked = False
        self._failures = 0

    async def run(self) -> int:
        """Start a process and wait for its end; returns its exit code, a signal's below zero."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await self._spawn(theirs.fileno())
            except BaseException:
                ours.close()
                raise
        self._process, self.pid = process, process.pid
        if self._asked:
            self.signal(signal.SIGTERM)
        listening = asyncio.create_task(self._listen(ours))
        try:
            return await process.wait()
        finally:
            self._process = None
            # Its last words are here already. The line's end may not be: something that the app
            # forked may hold it.
            await asyncio.wait([listening], timeout=LAST_WORDS)
            listening.cancel()
            self.health = None

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on; a process that comes later is told SIGTERM."""
        self._asked = True
        if self._process is None:
            return
        # One that has not begun has no handler yet, and would show where Ctrl-C met it.
        is_early = number == signal.SIGINT and self.absence
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM if is_early else number)

    def wait_before_next(self, lived: float) -> float:
        """Seconds until the next start: doubled from death to death, with jitter."""
        self._failures = 0 if lived >= STEADY else self._failures + 1
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0**self._failures)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        # In a group of its own: a terminal's Ctrl-C comes from the supervisor, and once.
        return await asyncio.create_subprocess_exec(
            *self._command,
            NUMBER_OPTION,
            str(self.number),
            LINE_OPTION,
            str(descriptor),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
            process_group=0,
        )

    async def _listen(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            if said := await reader.readline():
                self.health = json.loads(said)["health"]
                self.absence = ""
                self.started.set()
            await reader.read()
        except OSError:
            pass  # the process tells by its end what there is to know
        finally:
            writer.close()


class Supervisor:
    """`await run()` works until told to stop, or in burst mode until all processes are done."""

    def __init__(self, command: Sequence[str], options: SupervisorOptions) -> None:
        """`command` starts a worker; raises ConfigError when the health port cannot be had."""
        self._options = options
        self._processes = [
            WorkerProcess(number, command) for number in range(1, options.processes + 1)
        ]
        self._signals: list[signal.Signals] = []
        self._stopped = asyncio.Event()
        self._code = 0
        self._server = self._health_server()

    async def run(self) -> int:
        """Returns the exit code: 0 when all processes left cleanly, 130 after a second signal.

        A first process that cannot start ends it all: by its own exit code, for it has said why,
        or by WorkerNotStarted when a signal killed it.
        """
        undo_signals = self._take_signals()
        if self._server is not None:
            self._server.start()
        try:
            await self._live()
        finally:
            undo_signals()
            self._send(signal.SIGKILL)
            if self._server is not None:
                await asyncio.to_thread(self._server.stop)
        return self._code

    async def _live(self) -> None:
        first, *others = self._processes
        # Alone: what keeps one from starting keeps all, and is told once.
        keepers = [asyncio.create_task(self._keep(first))]
        has_started = asyncio.create_task(first.started.wait())
        await asyncio.wait([*keepers, has_started], return_when=asyncio.FIRST_COMPLETED)
        if has_started.done():
            url = self._server.url if self._server else None
            emit(SupervisorStarted(len(self._processes), url))
            keepers += [asyncio.create_task(self._keep(other)) for other in others]
        has_started.cancel()
        await asyncio.gather(*keepers)

    async def _keep(self, process: WorkerProcess) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                code = await process.run()
            except OSError as error:
                await self._not_spawned(process, error)
                continue
            lived = time.monotonic() - began
            if self._signals:
                self._note_leaving(process, code, lived)
            elif code == 0 and self._options.burst:
                process.absence = ""
                return
            elif not self._processes[0].started.is_set():
                self._give_up(code)
                return
            else:
                await self._pause(process, manner_of(code), lived)

    async def _not_spawned(self, process: WorkerProcess, error: OSError) -> None:
        manner = f"could not be started: {error}"
        if not self._processes[0].started.is_set():
            raise WorkerNotStarted(manner)
        await self._pause(process, manner, 0.0)

    async def _pause(self, process: WorkerProcess, manner: str, lived: float) -> None:
        wait = process.wait_before_next(lived)
        process.absence = f"{manner} and is started again"
        emit(WorkerProcessEnded(process.number, process.pid, manner, lived, wait))
        await set_within(self._stopped, wait)

    def _give_up(self, code: int) -> None:
        if code <= 0:
            raise WorkerNotStarted(manner_of(code))
        self._code = code

    def _note_leaving(self, process: WorkerProcess, code: int, lived: float) -> None:
        if process.absence:
            # It held nothing, so any end is a clean one. Nobody ever worked: a command was stopped.
            if not self._processes[0].started.is_set():
                self._code = self._code or 128 + self._signals[0]
        elif code != 0 and self._code != HURRIED_EXIT:
            emit(WorkerProcessEnded(process.number, process.pid, manner_of(code), lived, None))
            self._code = UNCLEAN

    # -- signals -----------------------------------------------------------------

    def _take_signals(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._received, number)

        def undo() -> None:
            for number in numbers:
                loop.remove_signal_handler(number)

        return undo

    def _received(self, number: signal.Signals) -> None:
        self._signals.append(number)
        if len(self._signals) > 1:
            self._code = HURRIED_EXIT
            self._send(signal.SIGKILL)
            return
        self._stopped.set()
        self._send(number)
        patience = self._options.shutdown_timeout + GRACE
        asyncio.get_running_loop().call_later(patience, self._send, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.signal(number)

    # -- health: called in the server's threads -----------------------------------------

    def _health_server(self) -> AnswerServer | None:
        if self._options.health_port is None:
            return None
        answers = {path: partial(self._reasons, path) for path in ("/healthz", "/readyz")}
        return AnswerServer(answers, self._options.health_host, self._options.health_port)

    def _reasons(self, path: str) -> list[str]:
        with ThreadPoolExecutor(len(self._processes)) as threads:
            found = threads.map(partial(_reasons_of, path), self._processes)
            return [reason for reasons in found for reason in reasons]


def _reasons_of(path: str, process: WorkerProcess) -> list[str]:
    name = f"process {process.number}"
    if process.absence:
        # To start it anew is the supervisor's work, not that of whoever asks for its life.
        return [f"{name} {process.absence}"] if path == "/readyz" else []
    if (url := process.health) is None:
        return []
    try:
        said = _asked(url, path)
    except (OSError, HTTPException, ValueError) as error:
        return [f"{name} (pid {process.pid}) does not answer: {error}"]
    return [f"{name} (pid {process.pid}): {reason}" for reason in said]


def _asked(url: str, path: str) -> list[str]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=ASK_TIMEOUT)
    try:
        connection.request("GET", path)
        reasons: list[str] = json.loads(connection.getresponse().read())["reasons"]
        return reasons
    finally:
        connection.close()

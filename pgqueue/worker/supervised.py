"""A worker process's tie to its supervisor: it says when it works, and it dies with it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from pgqueue.events import Event, WorkerStarted, subscribe
from pgqueue.worker.shutdown import only_stop

if TYPE_CHECKING:
    from pgqueue.worker.service import Worker

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class SupervisorLine:
    """The worker's end of a socket pair whose other end only the supervisor holds."""

    def __init__(self, descriptor: int, number: int = 1) -> None:
        """From here on this process, the `number`th, does not outlive its supervisor, however that
        one ends."""
        self._number = number
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        die_with_parent()
        # Where the kernel does not do it, and for a supervisor that died before it was asked to.
        threading.Thread(
            target=self._die_with_supervisor, name="pgqueue-supervisor", daemon=True
        ).start()

    def attend(self, worker: Worker) -> None:
        """Tell the supervisor when the worker has started, and let signals only ask it to stop."""
        worker.take_signals = only_stop
        # They serve the same queues, and one warning is enough.
        worker.tells_unknown_tasks = self._number == 1

        def started(event: Event) -> None:
            if isinstance(event, WorkerStarted):
                self._say({"health": event.health})

        subscribe(started, {WorkerStarted})

    def _say(self, words: dict[str, str | None]) -> None:
        self._socket.sendall(json.dumps(words).encode() + b"\n")

    def _die_with_supervisor(self) -> None:
        try:
            while self._socket.recv(1024):
                pass
        except OSError:
            pass  # a reset line is as much an end as a closed one
        os.kill(os.getpid(), signal.SIGKILL)


def manner_of(code: int) -> str:
    """How a process ended, by its exit code or, below zero, its signal."""
    if code >= 0:
        return f"left with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"

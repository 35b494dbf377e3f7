"""How a worker is asked to stop; by SIGTERM and SIGINT in two manners, taken once and kept.

To change the manner of a worker that runs would lose a signal that is on its way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

HURRIED_EXIT = 130
"""What the process returns when a second signal ended it."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSign:
    """Raised once, from any thread; `reason` says why, and is empty before."""

    def __init__(self, on_raised: Callable[[], None]) -> None:
        self._on_raised = on_raised
        self._raised = asyncio.Event()
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        # Whoever raises it while there is no home yet is done before there is one.
        self._settling = threading.RLock()
        self.reason = ""

    def belongs_here(self) -> None:
        """From now on all is done on the running event loop, whoever asks for it."""
        with self._settling:
            self._home = threading.get_ident(), asyncio.get_running_loop()

    def raise_(self, reason: str) -> None:
        with self._settling:
            if self._home is None:
                self._raise(reason)
                return
        thread, loop = self._home
        if thread == threading.get_ident():
            self._raise(reason)
            return
        # Once that loop is closed the worker has left.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._raise, reason)

    def _raise(self, reason: str) -> None:
        if self.reason:
            return
        self.reason = reason
        self._on_raised()
        self._raised.set()

    async def until_raised(self, work: asyncio.Task[None]) -> None:
        """Return when it is raised, or the work is done before."""
        raised = asyncio.create_task(self._raised.wait(), name="stop-sign")
        try:
            await asyncio.wait([work, raised], return_when=asyncio.FIRST_COMPLETED)
        finally:
            raised.cancel()


def leave_at_second_signal(stop: Callable[[str], None]) -> Callable[[], None]:
    """Call `stop` with the signal's name on SIGTERM or SIGINT; returns what undoes it.

    A second signal ends the process without another word: what it held is rescued by others.
    Signals reach the main thread alone: in any other one nothing is taken, nothing to be undone.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def received(name: str) -> None:
        if seen:
            os._exit(HURRIED_EXIT)
        seen.append(name)
        stop(name)

    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number.name)

    def undo() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    return undo


def only_stop(stop: Callable[[str], None]) -> Callable[[], None]:
    """Call `stop` at each signal, and never leave for one; what it returns undoes nothing.

    For a worker with a supervisor. Service managers signal every process of a service, and the
    supervisor passes its own signal on, which must not look like impatience; the supervisor ends
    impatiently by SIGKILL.
    """
    loop = asyncio.get_running_loop()

    def received(number: int, _: object) -> None:
        # Once the loop is closed the worker has left, and the process is about to.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop, signal.Signals(number).name)

    for number in _SIGNALS:
        # Not the loop's own handlers: those end with it, and the process lives a little longer.
        signal.signal(number, received)
    return lambda: None

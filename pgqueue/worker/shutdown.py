"""Signals: the first asks the worker to stop, the second leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

HURRIED_EXIT = 130
"""What the process returns when a second signal ended it."""


def on_signals(stop: Callable[[str], None]) -> Callable[[], None]:
    """Call `stop` with the signal's name on SIGTERM or SIGINT; returns what undoes it.

    A second signal ends the process without another word: what it held is rescued by others.
    """
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def received(name: str) -> None:
        if seen:
            os._exit(HURRIED_EXIT)
        seen.append(name)
        stop(name)

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, received, number.name)

    def undo() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    return undo

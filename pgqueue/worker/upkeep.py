"""The duties of a worker beside its jobs: its strays, the fleet's chores, the scheduler's tick.

Any number of workers do them at once: a chore is taken by one, the rest is safe to do twice.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pgqueue.events import DutyFailed, emit
from pgqueue.worker.link import LinkDown
from pgqueue.worker.waiting import set_within

AFTER_FAILURE = 1.0
"""Seconds until a duty that failed is tried again, at most."""

LONGEST_REST = 60.0
"""Seconds that a duty's own cost may put off its next turn."""


@dataclass(slots=True)
class Duty:
    """Something done every `every` seconds, and at once when `hurry` is called.

    Work that knows better returns the seconds until it wants to be done again.
    """

    name: str
    every: float
    work: Callable[[], Awaitable[float | None]]
    due: float = field(default=0.0)

    def hurry(self) -> None:
        self.due = 0.0


class Upkeep:
    """Runs duties one after another on one connection, each at its time, until stopped."""

    def __init__(self, duties: Sequence[Duty], connected: Callable[[], Awaitable[object]]) -> None:
        self._duties = duties
        self._connected = connected
        self._wake = asyncio.Event()
        self._stopping = False

    def hurry(self, name: str) -> None:
        """Let the duty of that name come next."""
        for duty in self._duties:
            if duty.name == name:
                duty.hurry()
        self._wake.set()

    def within(self, name: str, seconds: float) -> None:
        """Let the duty of that name come in so many seconds at most."""
        due = time.monotonic() + seconds
        for duty in self._duties:
            if duty.name == name and due < duty.due:
                duty.due = due
                self._wake.set()

    def stop(self) -> None:
        """End `run` after the duty that is under way."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        while not self._stopping:
            await self.run_once()
            next_due = min(duty.due for duty in self._duties)
            await set_within(self._wake, max(0.0, next_due - time.monotonic()))
            self._wake.clear()

    async def run_once(self) -> None:
        """Every duty that is due; one that fails is told and comes again at its next turn."""
        for duty in self._duties:
            if time.monotonic() < duty.due or self._stopping:
                continue
            # Not part of the cost: after an outage of a minute a duty would rest for twenty.
            await self._connected()
            # Set before the work, so that a `hurry` meanwhile is not forgotten.
            duty.due = math.inf
            wait = await self._paced(duty)
            duty.due = min(duty.due, time.monotonic() + wait)

    async def _paced(self, duty: Duty) -> float:
        """Do it; returns the seconds until its next turn."""
        began = time.monotonic()
        try:
            wait = await duty.work()
        except LinkDown as error:
            emit(DutyFailed(duty.name, f"connection lost: {error}"))
            return _jittered(min(duty.every, AFTER_FAILURE))
        except Exception as error:  # noqa: BLE001 - told, and the other duties go on
            emit(DutyFailed(duty.name, f"{type(error).__name__}: {error}"))
            return _jittered(min(duty.every, AFTER_FAILURE))
        if wait is not None:
            return wait
        # Its own cost sets the pace, too: a duty takes at most 5 % of the time.
        return _jittered(max(duty.every, min(LONGEST_REST, 20 * (time.monotonic() - began))))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.9, 1.0)  # noqa: S311 - no secret

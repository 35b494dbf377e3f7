"""Waits of the worker's loops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress


async def set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Return once the event is set, or after so many seconds; None waits for ever.

    Not `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes in the moment
    in which the event is set, and the loop that waits so would run for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def ended(tasks: Sequence[asyncio.Task[None]], within: float) -> None:
    """Cancel the tasks and return once they have ended, or after so many seconds.

    One that waits for a database which says nothing ends with its link.
    """
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=within)
    for task in done:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten

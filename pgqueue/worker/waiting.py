"""Waits of the worker's loops."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Return once the event is set, or after so many seconds; None waits for ever.

    Not `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes in the moment
    in which the event is set, and the loop that waits so would run for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

"""The scheduler inside a worker: sleeps until the next schedule is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from pgqueue.db.run import Steps
from pgqueue.engine.notify import LISTENING_REST, ring
from pgqueue.engine.steps import deliver_all
from pgqueue.engine.workflow import pass_told
from pgqueue.events import DutyFailed, emit
from pgqueue.schedule.release import let_go
from pgqueue.schedule.tick import look_ahead, tick
from pgqueue.settings import Settings
from pgqueue.worker.following import tell
from pgqueue.worker.link import Link, LinkDown
from pgqueue.worker.listener import Listener
from pgqueue.worker.loop import ClaimLoop

SHORTEST_REST = 0.05

UNSCHEDULED = 15.0
"""Seconds between looks while there is no schedule at all: who makes one tells, and this is for
those who insert the first one by SQL of their own."""


class Ticker:
    """`turn` ticks when something is due and returns the seconds until the next look."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        settings: Settings,
        listener: Listener,
        wake: Callable[[], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._settings = settings
        self._listener = listener
        self._wake = wake
        # A look that meets another one in the middle leaves its schedules to that one.
        self._looking = asyncio.Lock()

    async def turn(self) -> float:
        wait, is_held = await self._link.execute(look_ahead(self._sql))
        is_due = wait is not None and wait <= 0
        if not is_due and not is_held:
            longest = self._longest(wait)
            return min(longest, wait or longest)
        began = time.monotonic()
        async with self._looking:
            ticked = await self._link.execute(tick(self._sql))
        if ticked.jobs or ticked.released:
            self._wake()
            await self._link.execute(ring(self._sql, self._settings.channel, ""))
        if is_due:
            return SHORTEST_REST
        # The worker that ends the job before a held one looks at once; this is for when it cannot,
        # and takes at most 5 % of the time.
        rest = max(self._settings.poll_interval, 20 * (time.monotonic() - began))
        return rest if wait is None else min(rest, wait)

    def _longest(self, wait: float | None) -> float:
        """How long to rest at most: a schedule may be added or changed meanwhile."""
        poll = self._settings.poll_interval
        if not self._listener.is_listening:
            return poll
        return max(poll, UNSCHEDULED if wait is None else LISTENING_REST)

    async def let_go(self) -> None:
        """Let held windows go whose turn it is, for one of their jobs has ended here."""
        async with self._looking:
            released = await self._link.execute(let_go(self._sql))
        if released:
            self._wake()
            await self._link.execute(ring(self._sql, self._settings.channel, ""))

    async def until_idle(self, claims: ClaimLoop, link: Link, *, ticks: bool) -> None:
        """Returns when nothing is due, and another look brings no job forth."""
        await claims.idle.wait()
        brought, took_at = 1, 0.0
        # What another one has let go meanwhile is there to be taken: nothing may have been.
        while brought or claims.took_at != took_at:
            took_at = claims.took_at
            async with self._looking:
                brought = await self._look(link, ticks=ticks)
            claims.idle.clear()
            claims.wake()
            await claims.idle.wait()

    async def _look(self, link: Link, *, ticks: bool) -> int:
        try:
            return await link.execute(bring_forth(self._sql, ticks=ticks))
        except LinkDown:
            return 1  # the link comes back by itself: look again
        except Exception as error:  # noqa: BLE001 - told, and a burst has to end all the same
            emit(DutyFailed("windows", f"{type(error).__name__}: {error}"))
            return 0


def bring_forth(sql: Mapping[str, str], *, ticks: bool) -> Steps[int]:
    """Let held windows and nodes go, with `ticks` insert what is due; returns how many may run.

    Events are brought to who waits for them, too.
    """
    woken = yield from deliver_all(sql)
    passed = yield from pass_told(sql)
    tell(passed)
    # What another pass has may bring jobs, too.
    followers = woken + passed.released + len(passed.left)
    if not ticks:
        return followers + (yield from let_go(sql))
    ticked = yield from tick(sql)
    return followers + ticked.jobs + ticked.released

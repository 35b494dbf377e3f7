"""The scheduler inside a worker: sleeps until the next schedule is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgqueue.engine.notify import ring
from pgqueue.schedule.tick import seconds_to_next, tick
from pgqueue.settings import Settings
from pgqueue.worker.link import Link
from pgqueue.worker.listener import LISTENING_REST, Listener

SHORTEST_REST = 0.05


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

    async def turn(self) -> float:
        wait = await self._link.execute(seconds_to_next(self._sql))
        if wait is None or wait > 0:
            # A schedule may be added or changed meanwhile: with hints on, one tells.
            rest = LISTENING_REST if self._listener.is_listening else 0.0
            longest = max(self._settings.poll_interval, rest)
            return min(longest, wait or longest)
        ticked = await self._link.execute(tick(self._sql))
        if ticked.jobs:
            self._wake()
            await self._link.execute(ring(self._sql, self._settings.channel, ""))
        return SHORTEST_REST

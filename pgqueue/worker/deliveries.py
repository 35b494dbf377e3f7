"""Brings events to the jobs that wait for them; any number of workers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pgqueue.engine.notify import ring
from pgqueue.engine.steps import deliver_events
from pgqueue.settings import Settings
from pgqueue.worker.link import Link

SOON = 0.02
"""Seconds until the next look after one that woke somebody, or that met a job whose row was held:
its worker is putting it back just then. Two hints within a moment become one, too."""

WAITED_FOR = 1.0
"""Seconds until the next look while anybody waits: a hint may be lost, and not every emitter gives
one."""


UNWAITED = 15.0
"""And while nobody does: who begins to wait looks for the event, and its worker looks at once."""


class Deliveries:
    """`turn` delivers what there is and returns the seconds until the next look."""

    def __init__(
        self, sql: Mapping[str, str], link: Link, settings: Settings, wake: Callable[[], None]
    ) -> None:
        self._sql = sql
        self._link = link
        self._channel = settings.channel
        self._wake = wake
        self._rest = SOON

    async def turn(self) -> float:
        delivered = await self._link.execute(deliver_events(self._sql))
        if delivered.woken:
            self._wake()
            await self._link.execute(ring(self._sql, self._channel, ""))
        if delivered.woken or delivered.delivered:
            self._rest = SOON
            return 0.0 if delivered.has_more else SOON
        if delivered.has_more:
            # What somebody holds for long is not asked for fifty times a second.
            rest, self._rest = self._rest, min(WAITED_FOR, 2 * self._rest)
            return rest
        self._rest = SOON
        return WAITED_FOR if delivered.has_waiters else UNWAITED

"""Lets blocked jobs in: a worker's passes of admission, and when they come."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

from pgqueue.engine.limits import Pass, Place, admit, find_free_lines
from pgqueue.engine.notify import ring
from pgqueue.events import DutyFailed, JobsAdmitted, emit, is_wanted
from pgqueue.settings import Settings
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link, LinkDown

AGAIN_AFTER = 0.02
"""Seconds after which a pass is tried again where somebody else was at it: that one may have
counted before a slot here became free."""

FORGET_AFTER = 60.0
"""Seconds after which a worker no longer trusts the place it remembers: behind a pooler a failover
may be seen by nobody, and what a standby had not got yet lives below that place."""

LOOK_EVERY = 1.0
"""Seconds between looks far ahead of the passes, where more lines wait than a pass looks at: 13 ms
for 2000 lines, of which a pass takes 100 us each."""

SHORTEST_REST = 0.005
SHARE = 20
"""A pass that comes by itself takes a twentieth of the time at most."""


class Admission:
    """`turn` is one pass, or the try of one; it returns the seconds until the next."""

    def __init__(
        self,
        sql: Mapping[str, str],
        link: Link,
        settings: Settings,
        hand: Hand,
        *,
        queues: Sequence[str],
        has_room: Callable[[int], bool],
        let_in: Callable[[], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._settings = settings
        self._hand = hand
        self._queues = frozenset(queues)
        self._has_room = has_room
        self._let_in = let_in
        self.place = Place()
        """Where the next pass begins; the claim, too, looks at nothing below."""
        self._looked = ""
        self._next_look = -math.inf
        self._learned: tuple[Link, int, float] | None = None
        self._tried_at = -math.inf

    async def turn(self) -> float:
        began = time.monotonic()
        passed = await self.try_once(self._link)
        if not passed.ran:
            return AGAIN_AFTER * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        if passed.wait is None:
            return math.inf
        if passed.wait <= 0:
            return SHORTEST_REST
        return max(passed.wait, SHARE * (time.monotonic() - began))

    async def try_once(self, link: Link) -> Pass:
        """One try of a pass; what it lets in is claimed here, or others are told."""
        await self._forget(link)
        freed, self._hand.freed = self._hand.freed, set()
        alive = self._settings.heartbeat_timeout
        began = time.monotonic()
        try:
            freed |= await self._found_ahead(link)
            passed = await link.execute(admit(self._sql, freed, self.place, alive))
        except BaseException:
            self._hand.freed |= freed
            raise
        if not passed.ran:
            self._hand.freed |= freed
            return passed
        self.place = passed.place
        self._hand.freed.update(passed.unseen)
        if passed.admitted and is_wanted(JobsAdmitted):
            seconds = time.monotonic() - began
            emit(JobsAdmitted(passed.admitted, tuple(sorted(passed.queues)), seconds))
        if passed.admitted or passed.unclaimed:
            self._let_in()
        is_ours = self._are_ours(passed.queues) and self._has_room(passed.admitted)
        if passed.admitted and not is_ours:
            await link.execute(ring(self._sql, self._settings.channel, ""))
        return passed

    async def _found_ahead(self, link: Link) -> set[str]:
        """Lines with room of which nobody told, where passes would come to them after minutes."""
        now = time.monotonic()
        if not self.place.reached or now < self._next_look:
            return set()
        look = find_free_lines(self._sql, self._looked, self.place.lowest)
        names, self._looked = await link.execute(look)
        self._next_look = now + max(LOOK_EVERY, SHARE * (time.monotonic() - now))
        return set(names)

    async def _forget(self, link: Link) -> None:
        """Begin anew where the server may have been another one: admissions are not durable."""
        await link.connected()
        now = time.monotonic()
        if self._learned is not None:
            of, opened, since = self._learned
            if (of, opened) == (link, link.opened) and now < since + FORGET_AFTER:
                return
        self.place = Place(0, self.place.reached)
        self._learned = (link, link.opened, now)

    async def brings(self, link: Link, took_at: float) -> bool:
        """For a burst that claimed last at `took_at`: whether a look for more is worth it. Waits
        while slots are held or a rate is used up, here or elsewhere; not for what only a person or
        another worker can let go."""
        try:
            passed = await self.try_once(link)
        except LinkDown:
            return True  # the link comes back by itself: look again
        except Exception as error:  # noqa: BLE001 - told, and a burst has to end all the same
            emit(DutyFailed("admission", f"{type(error).__name__}: {error}"))
            return False
        if not passed.ran:
            await asyncio.sleep(AGAIN_AFTER)
            return True
        if passed.admitted or (passed.unclaimed and took_at != self._tried_at):
            # Our own duty may have let them in since the last look; or they are for others, and
            # then the next look takes none.
            self._tried_at = took_at
            return True
        if passed.wait is None or not (passed.moving or passed.wait <= 0):
            return False
        await asyncio.sleep(min(max(passed.wait, AGAIN_AFTER), 0.2))
        return True

    def _are_ours(self, queues: Sequence[str]) -> bool:
        return not self._queues or self._queues.issuperset(queues)

"""What is heard by NOTIFY, and whom it wakes: work begins within milliseconds, and the polls can be
rare.

The claims' connection listens. A connection apart would be one process more of the server that has
to wake up before a job can start (0.3 ms), and one connection more for each worker. Only where it
is a session of our own: behind a pooler a LISTEN ends with its transaction, and polling alone has
to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pgqueue.engine.notify import EVENTS, SCHEDULES


class Listener:
    """The ear of a link; `is_listening` says whether hints get through."""

    def __init__(
        self,
        channel: str | None,
        queues: Collection[str],
        *,
        wake: Callable[[str], None],
        wake_scheduler: Callable[[], None],
        wake_deliveries: Callable[[], None],
    ) -> None:
        """Without a channel it never listens."""
        self.channel = channel
        self._queues = frozenset(queues)
        self._wake = wake
        self._wake_scheduler = wake_scheduler
        self._wake_deliveries = wake_deliveries
        self.is_listening = False

    def began(self) -> None:
        self.is_listening = True
        # What was said before, nobody heard.
        self._wake("")
        self._wake_scheduler()
        self._wake_deliveries()

    def heard(self, said: str) -> None:
        if said == SCHEDULES:
            self._wake_scheduler()
        elif said == EVENTS:
            self._wake_deliveries()
        elif not (said and self._queues) or said in self._queues:
            self._wake(said)

    def ended(self) -> None:
        self.is_listening = False
        # Whoever sleeps long trusts in hints: look, which connects anew.
        self._wake("")

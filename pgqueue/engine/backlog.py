"""What a producer knows of full queues: learned from the hints it gives anyway, a second old at
most where a queue has a bound. Nothing is asked for a queue that has none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from pgqueue.db.run import Statement, Steps
from pgqueue.errors import TooManyJobs

FRESH = 1.0
"""Seconds for which a producer goes by what it knows of a queue with a bound."""

UNKNOWN_FOR = 10.0
"""Seconds between looks at a queue that seems to have none, where no hint tells."""


class _Fill(NamedTuple):
    seen_at: float
    most: int | None
    waiting: int


class Fills:
    """How full the queues are that this process enqueues to; safe to share between threads."""

    def __init__(self, sql: Mapping[str, str]) -> None:
        self._sql = sql
        self._known: dict[str, _Fill] = {}

    def learn(self, queue: str, found: list[int] | None) -> None:
        """What was found: the bound and how many wait; None where there is no bound."""
        most, waiting = found or (None, 0)
        self._known[queue] = _Fill(time.monotonic(), most, waiting)

    def is_open(self, queue: str) -> bool:
        """Whether no bound is known of: a hint will tell soon if there is one."""
        known = self._known.get(queue)
        return known is None or known.most is None

    def check(self, queue: str, count: int, *, told: bool) -> Steps[None]:
        """Raise TooManyJobs where `count` more are too many. A look of its own is taken only where
        what is known is old, and never when a hint will have `told` soon."""
        if told and self.is_open(queue):
            return
        known = self._known.get(queue)
        age = FRESH if known is not None and known.most is not None else UNKNOWN_FOR
        if known is None or time.monotonic() - known.seen_at > age:
            rows = yield Statement(self._sql["find_fill"], {"queue": queue})
            self.learn(queue, list(rows[0]) if rows else None)
            known = self._known[queue]
        if known.most is not None and known.waiting + count > known.most:
            raise TooManyJobs(
                f"queue {queue!r} has {known.waiting} jobs waiting, and {known.most} is the most "
                "it takes",
                known.most,
            )
        self._known[queue] = known._replace(waiting=known.waiting + count)

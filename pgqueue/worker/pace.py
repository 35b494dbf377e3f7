"""How many jobs a worker fetches beyond its free slots: what it is likely to run within a moment,
so that a slow handler's worker hoards nothing and a fast one's never waits for a round trip.
"""

from __future__ import annotations

import math

AHEAD_SECONDS = 0.05
"""How much work is fetched ahead, in time."""

MOST_AHEAD = 1_000
"""And in jobs: two rounds, one that is run while the other is under way."""

FAST = 1_000.0
"""Jobs a second from which on endings are gathered before they are written."""

LONGEST_REST = 10.0
"""Seconds, however dear something was."""

_WEIGHT = 0.05
"""Of one job in the mean time that handlers take: about the last twenty count."""

_SMOOTHING = 0.2
_WINDOW = 0.05
"""Seconds."""


class UsualCost:
    """What something that is done again and again costs when nothing else is in its way."""

    def __init__(self) -> None:
        self._last = math.inf

    def of(self, seconds: float) -> float:
        """The cheaper one of the last two times: while a handler blocks the event loop, a look of a
        millisecond seems to take a second, and must not be rested for as if it did."""
        cheaper = min(seconds, self._last)
        self._last = seconds
        return cheaper


class Share:
    """How much of all time something may take, where a little may be saved up: who is asked seldom
    need not rest for the last time. Times are monotonic."""

    def __init__(self, share: float, saved: float) -> None:
        """`saved` is the time, in seconds, whose share may be spent at once."""
        self._share = share
        self._saved = saved
        self.free_from = 0.0
        """From when on it may be done again."""

    def spent(self, began: float, seconds: float) -> None:
        rest = min(LONGEST_REST, seconds / self._share)
        self.free_from = max(self.free_from, began - self._saved) + rest


class Pace:
    """Learns from how long handlers take and how fast jobs really end. Times are monotonic."""

    def __init__(self, concurrency: int, now: float) -> None:
        self._concurrency = concurrency
        self.forget(now)

    def forget(self, now: float) -> None:
        """Begin again: what was learned was wrong."""
        self._mean: float | None = None
        self._per_second = 0.0
        self._since = now
        self._ended = 0
        self._is_starved = True

    def count(self, seconds: float, now: float) -> None:
        """A handler took so many seconds and ended now."""
        mean = seconds if self._mean is None else self._mean
        self._mean = mean + _WEIGHT * (seconds - mean)
        self._ended += 1
        if now - self._since >= _WINDOW:
            self._roll(now)

    def took(self, *, starved: bool) -> None:
        """New jobs arrived; `starved` if slots had stood empty and nothing waited for them."""
        self._is_starved = starved

    def ahead(self, now: float) -> int:
        """How many jobs to hold beyond those that run."""
        if self._mean is None:
            return 0
        most = min(float(MOST_AHEAD), self.possible() * AHEAD_SECONDS)
        if self._is_starved:
            return int(most)
        # Handlers that keep the processor busy get in each other's way: what they take says
        # nothing then, only what really ends.
        if now - self._since >= _WINDOW:
            self._roll(now)
        return int(min(most, 2 * self._per_second * AHEAD_SECONDS))

    def is_fast(self) -> bool:
        """Whether jobs may end by the thousand."""
        return self._mean is not None and self.possible() >= FAST

    def possible(self) -> float:
        """Jobs a second that the slots could run if none of them ever waited for a job."""
        return self._concurrency / max(self._mean or 0.0, 1e-6)

    def _roll(self, now: float) -> None:
        elapsed = now - self._since
        share = min(1.0, elapsed / _SMOOTHING)
        self._per_second += share * (self._ended / elapsed - self._per_second)
        self._since, self._ended = now, 0

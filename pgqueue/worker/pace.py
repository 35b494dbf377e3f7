"""How fast jobs end, so that a worker fetches ahead what it is likely to run soon."""

from __future__ import annotations


class Pace:
    """Jobs ended per second, smoothed over about a second; falls when nothing ends."""

    def __init__(self, now: float) -> None:
        self._per_second = 0.0
        self._since = now
        self._ended = 0

    def count(self, now: float) -> None:
        self._ended += 1
        self._roll(now, 0.05)

    def per_second(self, now: float) -> float:
        self._roll(now, 0.25)
        return self._per_second

    def _roll(self, now: float, at_least: float) -> None:
        elapsed = now - self._since
        if elapsed < at_least:
            return
        self._per_second += min(1.0, elapsed) * (self._ended / elapsed - self._per_second)
        self._since, self._ended = now, 0

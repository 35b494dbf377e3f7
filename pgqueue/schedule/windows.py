"""Which windows of a schedule are due, as a pure function: no database, no clock read.

A window is `[previous fire, fire)` in UTC. The windows of one schedule tile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from itertools import islice

from pgqueue.schedule.cron import Cron, utc

_MICRO = timedelta(microseconds=1)
ON_TIME = timedelta(seconds=60)


class CatchUp(StrEnum):
    """What becomes of fires that no tick was there for."""

    ALL = auto()
    """Every window, oldest first."""
    LATEST = auto()
    """The newest window alone; the gap before it stays visible."""
    NONE = auto()
    """Nothing: only fires younger than the grace count."""


@dataclass(frozen=True, slots=True)
class Window:
    """The span [start, end), both UTC; `end` is the fire that closed it."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """The windows to insert now, oldest first, and the first instant that was not handled.

    `next_run_at` lies at or before `now` only if `limit` cut the list: tick again.
    """

    windows: tuple[Window, ...]
    next_run_at: datetime


def due_windows(
    cron: Cron,
    next_run_at: datetime,
    now: datetime,
    *,
    last_window_end: datetime | None,
    catch_up: CatchUp,
    limit: int,
    grace: timedelta = ON_TIME,
    max_age: timedelta | None = None,
    max_count: int | None = None,
    ends_at: datetime | None = None,
) -> Due:
    """Return the windows whose fires lie in [next_run_at, now], at most `limit` of them.

    `last_window_end` is the end of the newest window (best: of the newest one that ends before
    `next_run_at`). The first window starts there, so a changed expression leaves no hole and no
    overlap; it is ignored when it is not before the fire, which is what setting `next_run_at` back
    leads to: the windows then come out as they did the first time. `grace` is for CatchUp.NONE.
    Of what was missed, fires older than `max_age` are left out, and all but the newest `max_count`.
    No fire comes after `ends_at`.
    Raises ValueError when `limit` is below 1 or an instant has no zone.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}: a pass that may handle nothing never ends")
    now, next_run_at = utc(now), utc(next_run_at)
    until = now if ends_at is None else min(now, utc(ends_at))
    if now < next_run_at:
        return Due((), next_run_at)
    # A stored next_run_at that is a fire is taken as it stands: no clock comes into it, so all
    # tickers agree. One that is none (set by SQL, or left by the expression before an edit) is
    # where a range begins: taken for a fire, it would cut a window in two that exists as one.
    first = cron.next(next_run_at - _MICRO)
    age = grace if catch_up is CatchUp.NONE else max_age
    begin = first if catch_up is not CatchUp.LATEST else max(first, cron.previous(until + _MICRO))
    if age is not None:
        # Strictly younger than that: of a minutely schedule one fire is younger than 60 s, not two.
        begin = max(begin, cron.next(now - age))
    if max_count is not None:
        begin = _newest(cron, begin, until, max_count)
    fires = list(islice(cron.between(begin, until), limit + 1))
    if not fires:
        return Due((), begin)
    handled = fires[:limit]
    following = fires[limit] if len(fires) > limit else cron.next(handled[-1])
    whole = begin == first and catch_up is not CatchUp.NONE
    last = None if last_window_end is None else utc(last_window_end)
    start = _start(cron, handled[0], last, skipped=not whole)
    return Due(_tile(start, handled), following)


def _newest(cron: Cron, first: datetime, until: datetime, count: int) -> datetime:
    """Return the oldest of the newest `count` fires in [first, until]."""
    fire = until + _MICRO
    for _ in range(count):
        if fire <= first:
            return first
        fire = cron.previous(fire)
    return max(first, fire)


def _start(
    cron: Cron, fire: datetime, last_window_end: datetime | None, *, skipped: bool
) -> datetime:
    previous = cron.previous(fire)
    if last_window_end is None or last_window_end >= fire:
        return previous
    # Where fires may have been skipped the window must not stretch over them, nor may it overlap.
    return max(previous, last_window_end) if skipped else last_window_end


def _tile(start: datetime, fires: list[datetime]) -> tuple[Window, ...]:
    return tuple(Window(a, b) for a, b in zip([start, *fires], fires, strict=False))

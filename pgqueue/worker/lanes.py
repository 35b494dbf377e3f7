"""Which lanes to claim from, in which order, and from which place on. Pure: no clock, no I/O.

A lane is (queue, priority). Its bound is the last (run_at, id) seen in it: with an old snapshot
open, dead index entries pile up in front of the claim, and starting behind them keeps it flat. The
bound lives here, in memory: a row would be the next hot dead row. What lands below it (a late
commit, a hand-back) is found by sweeps from the start of the lane. While a claim from the start is
cheap and there is no backlog, the bound is not used at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from pgqueue.db.run import time_of
from pgqueue.engine.claim import LANE, LANE_START, PLACE, Claimed, Lane

PROMOTE_EVERY = 8
"""Each so many claims, another lane goes first, in turn, whatever its priority: a job waits at most
PROMOTE_EVERY times the number of lanes claims, however full the lanes above it are."""

CHEAP = 0.005
CHEAP_PER_JOB = 0.0002
"""Seconds up to which a claim from the start of the lanes counts as cheap, and what each claimed
job may add."""

SWEEP_SHARE = 100
SWEEP_AT_MOST = 10.0
"""A sweep comes after 100 times its own cost, so it takes 1 % of the time, but within 10 s. What a
bound hides is found after at most as many sweeps as there are lanes."""


class LaneBook:
    """The lanes of one worker: their order, their bounds, and when to sweep."""

    def __init__(self, queues: Sequence[str], rand: Callable[[], float]) -> None:
        self._queues = frozenset(queues)
        self._rand = rand
        self._active: list[tuple[str, int]] = []
        self._seen: dict[str, set[tuple[str, int]]] = {}
        # Kept for lanes that ran empty, too: their dead entries are still there.
        self._bounds: dict[tuple[str, int], tuple[datetime, int]] = {}
        self._claims = 0
        self._sweeps = 0
        self._cheap = True
        self._has_backlog = False
        self._next_sweep = 0.0

    def found(self, lanes: Iterable[tuple[str, int]]) -> None:
        """These lanes hold queued jobs now."""
        self._active = [lane for lane in lanes if not self._queues or lane[0] in self._queues]
        for lane in self._active:
            self._seen.setdefault(lane[0], set()).add(lane)

    def expect(self, queues: Iterable[str]) -> None:
        """The lanes of these queues may hold jobs again: those that ever did."""
        expected = [lane for queue in queues for lane in self._seen.get(queue, ())]
        self._active += [lane for lane in expected if lane not in self._active]

    def __len__(self) -> int:
        return len(self._active)

    def is_sweep_due(self, now: float) -> bool:
        """Whether the next claim goes from the start of the lanes, `now` in monotonic seconds."""
        return not self._uses_bounds or now >= self._next_sweep

    @property
    def _uses_bounds(self) -> bool:
        # With a backlog nobody waits for what lies below, and dead entries pile up fastest.
        return self._has_backlog or not self._cheap

    def order(self, *, sweep: bool) -> list[Lane]:
        """The lanes for the next claim: high priorities first, those of one priority rotated."""
        self._claims += 1
        lanes = sorted(self._active, key=lambda lane: (-lane[1], lane[0]))
        ordered = [lane for group in _by_priority(lanes) for lane in _rotated(group, self._claims)]
        first = self._promoted(lanes, sweep=sweep)
        if first is not None:
            ordered.remove(first)
            ordered.insert(0, first)
        return [
            Lane(*lane, LANE_START if sweep else self._bounds.get(lane, LANE_START))
            for lane in ordered
        ]

    def _promoted(self, lanes: Sequence[tuple[str, int]], *, sweep: bool) -> tuple[str, int] | None:
        """The lane that goes first out of turn, if any."""
        if not lanes:
            return None
        if sweep and self._uses_bounds:
            # Rare and often cut short by a full lane: led by each lane in turn, or what lies below
            # the bound of a low one would wait for ever.
            self._sweeps += 1
            return lanes[self._sweeps % len(lanes)]
        if self._claims % PROMOTE_EVERY == 0:
            return lanes[(self._claims // PROMOTE_EVERY) % len(lanes)]
        return None

    def saw(
        self, claimed: Claimed, *, sweep: bool, seconds: float, now: float, full: bool = False
    ) -> None:
        """Learn from a claim: move the bounds, and decide when to sweep again.

        It was `full` when it took as many as were asked for: then there are more.

        A sweep sets a lane's bound to the last row it returned, even downwards, so that what it
        found is drained at full speed. A claim that locked more than it got met edited rows: their
        new versions lie below, so the bounds stay.
        """
        self._cheap = (self._cheap or sweep) and (
            seconds <= CHEAP + CHEAP_PER_JOB * len(claimed.jobs)
        )
        self._has_backlog = full
        if sweep:
            wait = min(SWEEP_AT_MOST, SWEEP_SHARE * seconds)
            # A random phase, so that the workers of a fleet do not sweep at one instant.
            self._next_sweep = now + wait * (0.75 + 0.25 * self._rand())
        if claimed.locked > len(claimed.jobs):
            return
        # Of each lane the last stays: the jobs of one are in order.
        last = dict(zip(map(LANE, claimed.jobs), map(PLACE, claimed.jobs), strict=True))
        for lane, (run_at, job_id) in last.items():
            self._bounds[lane] = (time_of(run_at), job_id)


def _by_priority(lanes: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    groups: dict[int, list[tuple[str, int]]] = {}
    for lane in lanes:
        groups.setdefault(lane[1], []).append(lane)
    return list(groups.values())


def _rotated(group: list[tuple[str, int]], turn: int) -> list[tuple[str, int]]:
    start = turn % len(group)
    return group[start:] + group[:start]

"""Claims jobs and starts them; worker/writer.py writes how they ended, on a connection of its own.

The claim is never cancelled: a reply that is thrown away leaves jobs `running` for nobody.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence

from pgqueue.engine.claim import (
    Claimed,
    claim_jobs,
    claimed_of_rows,
    look_around,
    look_of_rows,
    new_lease,
)
from pgqueue.engine.limits import claim_limited, limited_of_rows
from pgqueue.engine.notify import LISTENING_REST
from pgqueue.events import DutyFailed, JobsClaimed, emit, is_wanted
from pgqueue.worker.hand import Hand, handed_back
from pgqueue.worker.lanes import LaneBook
from pgqueue.worker.link import FIRST_WAIT, LONGEST_WAIT, Link, LinkDown
from pgqueue.worker.pace import Pace, Share, UsualCost
from pgqueue.worker.runner import Runner
from pgqueue.worker.slots import Slots
from pgqueue.worker.waiting import set_within

BATCH = 500
"""Most jobs claimed in one round."""

FIRST_REST = 0.01
"""Seconds until the next look for work after one that found none, doubled each time up to the poll
interval, or LISTENING_REST while hints get through."""

HINTED_SHARE, HINTED_SAVED = 0.2, 0.1
"""Share of the time that looks and vain claims may take which hints ask for, and how many seconds'
may be saved up: a fleet may send hundreds a second; behind a held snapshot a look is slow."""

KEEP_WAITING = 1.0
"""Seconds after which claimed jobs that found no free slot are given back to the fleet."""


class ClaimLoop:
    """The heart of a worker. `run` until `stop_claiming` was called and nothing is in hand."""

    def __init__(
        self,
        *,
        sql: Mapping[str, str],
        link: Link,
        runner: Runner,
        slots: Slots,
        hand: Hand,
        pace: Pace,
        lanes: LaneBook,
        tasks: Sequence[str],
        worker_id: Callable[[], int],
        concurrency: int,
        poll_interval: float,
        is_listening: Callable[[], bool],
        on_lost_reply: Callable[[], None],
        queues: Sequence[str],
        lowest: Callable[[], int],
        on_blocked: Callable[[float], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._runner = runner
        self._slots = slots
        self._hand = hand
        self._pace = pace
        self._tasks = tasks
        self._lanes = lanes
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._is_listening = is_listening
        self._on_lost_reply = on_lost_reply
        self._queues = queues
        self._lowest = lowest
        self._on_blocked = on_blocked
        self._is_admitted = False
        self._admitted_first = True
        self._wake = asyncio.Event()
        hand.on_free = self._wake.set
        self._claiming = True
        self._held_off = False
        self._has_more = False
        self._hinted: set[str] = set()
        self._calls = 0
        """What was said from outside: a look that was under way then may not have seen it."""
        self._next_poll, self._hints = 0.0, Share(HINTED_SHARE, HINTED_SAVED)
        self._look_cost, self._vain_cost = UsualCost(), UsualCost()
        self._rest = FIRST_REST
        self.took_at = 0.0
        """When a claim brought jobs last, on the monotonic clock."""
        self._found_nothing = False
        self._room_with_suspects = BATCH
        self._reconciled = 0
        self.lost_replies = 0
        """How often it is unknown what a claim took; see `reconciled`."""
        self.idle = asyncio.Event()
        """Set whenever a look from the start of all lanes found nothing and nothing is in hand."""

    # -- from outside ----------------------------------------------------------

    def wake(self, queue: str = "") -> None:
        """Look for work now, or as soon as the last look is paid for; in `queue` first."""
        self._calls += 1
        if queue:
            self._hinted.add(queue)
        self._rest = FIRST_REST
        self._next_poll = self._hints.free_from
        self._wake.set()

    def let_in(self) -> None:
        """Blocked jobs were let in: they are there to be claimed."""
        self._calls += 1
        self._is_admitted = True
        self._wake.set()

    def has_room(self, count: int) -> bool:
        """Whether so many admitted jobs could start here at once."""
        has_room = self._slots.free() >= count and not self._hand.waiting
        return self._may_claim() and has_room

    def reconciled(self, lost_replies: int) -> None:
        """What the first so many lost replies had taken was given back."""
        if self._reconciled != lost_replies:
            self._reconciled = lost_replies
            self.wake()

    def stop_claiming(self) -> None:
        """Take nothing new, and give back what has not started."""
        self._claiming = False
        self._give_up_waiting()
        self._wake.set()

    def cancel_running(self) -> None:
        """End every handler; their jobs are handed back without costing an attempt."""
        self._slots.cancel_all()

    def hold_off(self) -> None:
        """Stop all handlers and claim nothing until `resume`: our leases may be taken."""
        self._held_off = True
        self._give_up_waiting()
        self.cancel_running()

    def resume(self) -> None:
        self._held_off = False
        self.wake()

    # -- the loop --------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop_claiming` was called and nothing is in hand."""
        wait = FIRST_WAIT
        while self._claiming or not self._hand.is_empty:
            await self._wait()
            try:
                await self._round()
            except LinkDown:
                self.note_lost_reply()
            except Exception as error:  # noqa: BLE001 - told, and no error of ours may end a worker
                emit(DutyFailed("claim", f"{type(error).__name__}: {error}"))
                await self._link.close()
                self.note_lost_reply()
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                wait = FIRST_WAIT

    def note_lost_reply(self) -> None:
        """It is unknown what a claim took."""
        self.lost_replies += 1
        self._found_nothing = False
        self._on_lost_reply()

    async def _wait(self) -> None:
        if self._wants() > 0:
            # Handlers have their turn while the claim is under way. A turn for them before it is
            # sent would leave the server idle for as long: 40,000 jobs a second instead of 46,000.
            return
        if self._wants_admitted() > 0:
            # One turn of the event loop, so that handlers get theirs between two full rounds.
            await asyncio.sleep(0)
            return
        wait = max(0.0, self._next_poll - time.monotonic()) if self._may_claim() else None
        await set_within(self._wake, wait)
        self._wake.clear()

    async def _round(self) -> None:
        now = time.monotonic()
        # What was in hand before the look may have enqueued more than the look could see.
        was_empty, calls = self._hand.is_empty, self._calls
        self._found_nothing = False
        if self._hand.waiting and now - self.took_at > KEEP_WAITING:
            self._give_up_waiting()
            # It promised slots that did not come: what is given back would be fetched again.
            self._pace.forget(now)
        if self._hinted:
            await self._follow_hints()
        if self._may_claim() and now >= self._next_poll:
            await self._look_for_lanes()
        if self._is_admitted:
            await self._share_round()
        elif (room := self._wants()) > 0:
            await self._claim(min(room, BATCH))
        found_nothing = self._found_nothing and calls == self._calls
        if was_empty and found_nothing and self._reconciled == self.lost_replies:
            self.idle.set()
        elif not was_empty and self._hand.is_empty:
            self._next_poll = self._hints.free_from

    async def _follow_hints(self) -> None:
        """Claim at once where a hint says that there is work: the look costs a round trip."""
        hinted, self._hinted = self._hinted, set()
        if self._has_more or time.monotonic() < self._hints.free_from:
            return
        self._lanes.expect(hinted)
        self._has_more = len(self._lanes) > 0
        if (room := self._wants()) > 0:
            await self._claim(min(room, BATCH))
            # Its handlers begin before the look is sent, which takes Python 0.3 ms when cold.
            await asyncio.sleep(0)
        # What else there is, the look tells.
        self._found_nothing = False

    async def _share_round(self) -> None:
        """Admitted jobs and the others go first by turns, so that neither keeps out the other."""
        took_at = self.took_at
        self._admitted_first = not self._admitted_first
        if self._admitted_first:
            await self._claim_admitted()
        if (room := self._wants()) > 0:
            await self._claim(min(room, BATCH))
        if not self._admitted_first:
            await self._claim_admitted()
        if self.took_at != took_at:
            self._found_nothing = False

    async def _claim_admitted(self) -> None:
        room = self._slots.free()
        if self._hand.waiting and self._slots.kept == 0:
            # What waits in hand takes each slot that becomes free: keep the next one.
            self._slots.keep(1)
            return
        if room <= 0 or not self._may_claim():
            return
        lease = new_lease()
        claim = claim_limited(
            self._sql,
            self._queues,
            self._tasks,
            worker_id=self._worker_id(),
            lease=lease,
            limit=self._slots.kept or room,
            lowest=self._lowest(),
            suspects=not self._hand.holds_suspect(),
        )
        self._hand.leases_in_flight.add(lease)
        try:
            (rows,) = await self._link.ask(claim)
        finally:
            # No turn of the event loop until the jobs are in hand, or they would count as strays.
            self._hand.leases_in_flight.discard(lease)
            self._slots.keep(0)
        claimed, limits = limited_of_rows(lease, rows)
        self._is_admitted = claimed.locked > 0
        self._hand.limits.update(limits)
        before = list(self._hand.waiting)
        self._hand.waiting.clear()
        self._take(claimed)
        self._hand.waiting.extend(before)

    async def _claim(self, room: int) -> None:
        began = time.monotonic()
        sweep = self._lanes.is_sweep_due(began)
        lease = new_lease()
        with_suspects = not self._hand.holds_suspect()
        if with_suspects:
            room = min(room, self._room_with_suspects)
        claim = claim_jobs(
            self._sql,
            self._lanes.order(sweep=sweep),
            self._tasks,
            worker_id=self._worker_id(),
            lease=lease,
            limit=room,
            suspects=with_suspects,
        )
        self._hand.leases_in_flight.add(lease)
        try:
            (rows,) = await self._link.ask(claim)
        finally:
            # No turn of the event loop until the jobs are in hand, or they would count as strays.
            self._hand.leases_in_flight.discard(lease)
        claimed = claimed_of_rows(lease, rows)
        ended = time.monotonic()
        self._lanes.saw(
            claimed, sweep=sweep, full=claimed.locked >= room, seconds=ended - began, now=ended
        )
        if with_suspects:
            self._learn_of_suspects(claimed)
        self._has_more = claimed.locked > 0
        self._found_nothing = sweep and not claimed.locked
        if claimed.locked:
            self._rest = FIRST_REST
        else:
            # Long where the lanes hold what only others know, and hints of more of it keep coming.
            cost = self._vain_cost.of(ended - began)
            self._hints.spent(began, cost)
            poll = min(self._next_poll, ended + self._next_rest())
            self._next_poll = max(poll, self._hints.free_from)
        self._take(claimed)

    def _learn_of_suspects(self, claimed: Claimed) -> None:
        # After a crash at full speed there are hundreds, one beside the other. One is kept, the
        # rest is handed back: 300 of them were claimed 44,000 times.
        found = sum([job.suspect for job in claimed.jobs])
        if found > 1:
            self._room_with_suspects = 1
        elif not found:
            self._room_with_suspects = min(BATCH, 2 * self._room_with_suspects)

    async def _look_for_lanes(self) -> None:
        # Not the round's: a claim and its handlers may have been in between.
        now, calls = time.monotonic(), self._calls
        (rows,) = await self._link.ask(look_around(self._sql, self._lowest()))
        found = (look := look_of_rows(rows)).lanes
        # The walk over the lanes passes dead entries, too: it may take 5 % of the time.
        cost = self._look_cost.of(time.monotonic() - now)
        self._hints.spent(now, cost)
        self._lanes.found((queue, priority) for queue, priority, due_in in found if due_in <= 0)
        self._has_more = len(self._lanes) > 0
        self._is_admitted = look.admitted or (self._is_admitted and calls != self._calls)
        if not self._is_admitted:
            self._slots.keep(0)
        self._found_nothing = not self._has_more and not self._is_admitted
        if look.wait is not None:
            self._on_blocked(look.wait)
        if self._has_more:
            wait = self._poll_interval * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
        else:
            soonest = min((due_in for _, _, due_in in found), default=LISTENING_REST)
            wait = min(self._next_rest(), soonest)
        self._next_poll = now + max(wait, min(10.0, 20 * cost))

    def _next_rest(self) -> float:
        """Seconds until the next look: short after work, long in a quiet time."""
        rest = self._rest
        longest = max(self._poll_interval, LISTENING_REST if self._is_listening() else 0.0)
        self._rest = min(longest, 2 * rest)
        return rest * random.uniform(0.9, 1.0)  # noqa: S311 - jitter

    # -- jobs in hand ----------------------------------------------------------

    @property
    def is_claiming(self) -> bool:
        """Whether the worker takes jobs just now."""
        return self._may_claim()

    def _may_claim(self) -> bool:
        return self._claiming and not self._held_off

    def _wants_admitted(self) -> int:
        if not (self._is_admitted and self._may_claim()):
            return 0
        return self._slots.free() if self._slots.kept or not self._hand.waiting else 0

    def _wants(self) -> int:
        """How many jobs to claim now. With work in hand only a large order is worth a round."""
        if not (self._may_claim() and self._has_more):
            return 0
        most = self._concurrency + self._pace.ahead(time.monotonic())
        room = most - len(self._hand) - len(self._runner.lingering)
        is_large = room >= min(BATCH, most // 2)
        return room if is_large or not self._hand.waiting else 0

    def _take(self, claimed: Claimed) -> None:
        if not claimed.jobs:
            return
        self.idle.clear()
        self.took_at = time.monotonic()
        if is_wanted(JobsClaimed):
            ids = tuple(job.id for job in claimed.jobs)
            emit(JobsClaimed(self._worker_id(), ids, claimed.lease))
        self._pace.took(starved=not self._hand.waiting and self._slots.has_free())
        self._hand.took(claimed.jobs)
        if not self._may_claim():
            self._give_up_waiting()
        self._slots.fill()

    def _give_up_waiting(self) -> None:
        while self._hand.waiting:
            self._hand.end(handed_back(self._hand.waiting.popleft()))

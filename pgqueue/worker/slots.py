"""The slots of a worker: each runs one job after another, at most `concurrency` at a time."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque

from pgqueue.engine.claim import ClaimedJob
from pgqueue.events import DutyFailed, emit
from pgqueue.worker.batches import Batches
from pgqueue.worker.hand import Hand, Try, handed_back
from pgqueue.worker.pace import Pace
from pgqueue.worker.runner import Runner, Settled

TURN = 0.004
"""Seconds that handlers which never wait may hold the event loop, all slots together, until
everything else gets its turn."""

SPROUT = 2
"""Slots started at a time; each that begins starts as many again. A hundred at once would mostly
find that the first of them has run all the short jobs: 3 microseconds a job."""


class Slots:
    """Takes from `hand.waiting`, gives to `hand.ended` how each try settled.

    A slot is a task that lives as long as jobs wait: a task for each would cost more than a short
    job does.
    """

    def __init__(
        self,
        runner: Runner,
        hand: Hand,
        pace: Pace,
        concurrency: int,
        batches: Batches,
    ) -> None:
        self._runner = runner
        self._batches = batches
        self._hand = hand
        self._pace = pace
        self._concurrency = concurrency
        self._slots: set[asyncio.Task[None]] = set()
        self._by_try: dict[Try, asyncio.Task[None]] = {}
        self._turn_ends = 0.0
        self._resting: deque[asyncio.Future[None]] = deque()
        self._is_passing_on = False
        self.kept = 0
        """Slots that what waits in hand is not to take: they are for admitted jobs, which are never
        fetched ahead."""
        runner.on_late_end = self._thread_freed

    @property
    def is_busy(self) -> bool:
        """Whether handlers still run."""
        return bool(self._by_try)

    def fill(self) -> None:
        """Start slots for jobs that wait, if there is room."""
        # A slot that has no room ends at once, and would be started again at once.
        room = self._concurrency - self.kept - len(self._slots) - len(self._runner.lingering)
        for _ in range(min(SPROUT, room, len(self._hand.waiting))):
            slot = asyncio.create_task(self._slot(), name="slot")
            self._slots.add(slot)
            slot.add_done_callback(self._slot_ended)

    def keep(self, count: int) -> None:
        """Keep so many slots free for admitted jobs from now on."""
        self.kept = count
        self.fill()

    def has_free(self) -> bool:
        """Whether a job that came now could start at once."""
        return self.free() > 0

    def free(self) -> int:
        """Slots that run nothing."""
        return self._concurrency - len(self._hand.running) - len(self._runner.lingering)

    def cancel(self, key: Try) -> None:
        """Stop a running job because somebody asked for it; no longer running is fine."""
        stopped = self._batches.cancel(key)
        if stopped in self._by_try:
            self._runner.cancel(stopped)
            self._by_try[stopped].cancel()

    def cancel_all(self) -> None:
        """End every handler; their jobs are handed back without costing an attempt."""
        for key, slot in self._by_try.items():
            self._runner.stop(key)
            slot.cancel()

    async def _slot(self) -> None:
        me, context = _this_task(), contextvars.copy_context()
        await self._take_turn()
        if len(self._hand.waiting) > 1:
            self.fill()
        while (job := self._next()) is not None:
            began = time.monotonic()
            if began > self._hand.proven_until:
                # The process was frozen: nobody on the loop could have fenced it before this.
                self._hand.end(handed_back(job))
                continue
            key = (job.id, job.lease)
            self._hand.running[key] = job
            self._by_try[key] = me
            run = self._batches.run if job.task in self._batches.tasks else self._runner.run
            settled = await run(job)
            now = time.monotonic()
            del self._hand.running[key]
            del self._by_try[key]
            self._pace.count(now - began, now)
            self._keep(settled)
            self._hand.on_free()
            # What a handler left behind is not for the next one: neither a context variable nor
            # a cancellation that has not arrived yet.
            if me.cancelling() or contextvars.copy_context() != context:
                return
            if now >= self._turn_ends:
                await self._rest()

    def _keep(self, settled: Settled | None) -> None:
        if settled is None:
            return
        if settled.written:
            self._hand.tally.completed += 1
            self._hand.let_followers_go((settled.outcome.job_id,))
        else:
            self._hand.end(settled.outcome)

    def _next(self) -> ClaimedJob | None:
        while self._hand.waiting and self.free() > self.kept:
            job = self._hand.waiting.popleft()
            if job.task not in self._batches.tasks or not self._batches.takes_along(job):
                return job
        return None

    async def _take_turn(self) -> None:
        now = time.monotonic()
        if now < self._turn_ends:
            return
        if self._resting:
            await self._rest()
        else:
            self._turn_ends = now + TURN

    async def _rest(self) -> None:
        """Let everything else have its turn. One slot comes back at a time: where handlers never
        wait, one is enough, and a hundred would only look at the clock."""
        resting = asyncio.get_running_loop().create_future()
        self._resting.append(resting)
        self._pass_on_soon()
        await resting

    def _pass_on_soon(self) -> None:
        if not self._is_passing_on:
            self._is_passing_on = True
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        # The loop has looked at its sockets since this was asked for.
        self._is_passing_on = False
        now = time.monotonic()
        if now >= self._turn_ends:
            self._turn_ends = now + TURN
        while self._resting:
            resting = self._resting.popleft()
            if not resting.done():  # cancelled with its slot
                resting.set_result(None)
                break
        if self._resting:
            self._pass_on_soon()

    def _thread_freed(self) -> None:
        self.fill()
        self._hand.on_free()

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if not slot.cancelled() and (error := slot.exception()) is not None:
            emit(DutyFailed("slot", f"{type(error).__name__}: {error}"))
        self.fill()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task; the type cannot say it
    return task

"""Writes how jobs ended and what handlers say, and sees which running ones somebody wants stopped.

On a connection of its own, so that Postgres writes what has ended while it claims what comes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from pgqueue.db.run import ask
from pgqueue.engine.cancel import find_cancel_marks
from pgqueue.engine.finish import Written
from pgqueue.events import DutyFailed, EndingsHeldUp, LeasesLost, emit
from pgqueue.job import Ended, Outcome, Requeued, State
from pgqueue.worker.exchange import Exchange
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import FIRST_WAIT, LONGEST_WAIT, Link, LinkDown
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.pace import Pace
from pgqueue.worker.slots import Slots
from pgqueue.worker.waiting import set_within

BATCH = 1_000
"""Most outcomes written in one round."""

FLUSH_COUNT = 500
FLUSH_AFTER = 0.005
"""Where jobs end by the thousand, endings are gathered, up to so many or for so many seconds: a
round for each would cost more than the jobs."""

ATTEND_EVERY = 0.4
"""Seconds between looks after running jobs: their notes are written, cancel marks are seen."""


class Writer:
    """`run` until cancelled, which is safe once nothing is in hand."""

    def __init__(
        self,
        *,
        sql: Mapping[str, str],
        link: Link,
        hand: Hand,
        slots: Slots,
        pace: Pace,
        notepad: Notepad,
        worker_id: Callable[[], int],
    ) -> None:
        self._sql = sql
        self._link = link
        self._hand = hand
        self._slots = slots
        self._pace = pace
        self._notepad = notepad
        self._worker_id = worker_id
        self._exchange = Exchange(sql, link, hand.limits)
        self._wake = asyncio.Event()
        self._next_attend = 0.0
        hand.on_ended = self._wake.set

    async def run(self) -> None:
        wait = FIRST_WAIT
        while True:
            await self._wait()
            try:
                await self._round(time.monotonic())
            except LinkDown:
                pass  # what was not written is kept, and the link comes back by itself
            except Exception as error:  # noqa: BLE001 - told, and no error of ours may end a worker
                emit(DutyFailed("write", f"{type(error).__name__}: {error}"))
                await self._link.close()
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                wait = FIRST_WAIT

    async def _wait(self) -> None:
        hand = self._hand
        if self._is_flush_due(time.monotonic()):
            # One turn of the event loop, so that handlers get theirs between two full rounds.
            await asyncio.sleep(0)
            return
        due = [self._next_attend] if hand.running else []
        due += [hand.held_until] if hand.held_until is not None else []
        due += [hand.first_ended + FLUSH_AFTER] if hand.ended else []
        # A job that has just begun to run is attended to after a first pause.
        timeout = max(0.0, min(due) - time.monotonic()) if due else ATTEND_EVERY
        await set_within(self._wake, timeout)
        self._wake.clear()

    def _is_flush_due(self, now: float) -> bool:
        hand = self._hand
        if not hand.ended:
            return False
        return (
            len(hand.ended) >= FLUSH_COUNT
            or not (hand.running or hand.waiting)
            or now - hand.first_ended >= FLUSH_AFTER
            or not self._pace.is_fast()
        )

    async def _round(self, now: float) -> None:
        self._hand.release(now)
        if self._hand.running and now >= self._next_attend:
            self._next_attend = now + ATTEND_EVERY
            await self._stop_cancelled()
            await self._write(())
        if self._is_flush_due(now):
            await self._write(self._hand.take_ended(BATCH))
            self._hand.on_free()

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        # The notes of an ended job have to be there before its row goes.
        notes = self._notepad.take() if self._notepad else []
        if not (outcomes or notes):
            return
        try:
            written = await self._exchange.write(outcomes, notes)
        except BaseException:
            self._hand.give_back(outcomes)
            self._notepad.give_back(notes)
            raise
        if outcomes:
            self._hand.written()
        self._notepad.give_back(written.held_notes)
        if new := self._hand.hold(outcomes, written.held, time.monotonic()):
            emit(EndingsHeldUp(self._worker_id(), new))
        self._count(outcomes, written)

    async def _stop_cancelled(self) -> None:
        running = self._hand.started()
        marks = await self._link.execute(ask(find_cancel_marks(self._sql, running)))
        marked = {job_id for (job_id,) in marks}
        for job in running:
            if job.id in marked:
                self._slots.cancel((job.id, job.lease))

    def _count(self, outcomes: Sequence[Outcome], written: Written) -> None:
        tally = self._hand.tally
        self._hand.let_followers_go(written.applied)
        applied = [outcome for outcome in outcomes if outcome.job_id in written.applied]
        states = [outcome.state for outcome in applied if isinstance(outcome, Ended)]
        tally.completed += states.count(State.COMPLETED)
        tally.failed += states.count(State.FAILED)
        if len(states) < len(applied):
            again = [outcome for outcome in applied if isinstance(outcome, Requeued)]
            tally.handed_back += sum(outcome.uncounted for outcome in again)
        if written.lost:
            ids = tuple(outcome.job_id for outcome in written.lost)
            self._hand.let_followers_go(ids)
            emit(LeasesLost(self._worker_id(), ids))

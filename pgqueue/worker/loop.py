"""Claims jobs, starts them, writes how they ended: one round trip for as much of it as is due.

Endings and the next claim travel in one transaction. The claim is never cancelled: a reply that is
thrown away leaves jobs `running` for nobody.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psycopg

from pgqueue.db.run import Batch, Rows, Statement, Steps
from pgqueue.engine.claim import (
    NO_SEQSCAN,
    Claimed,
    Lane,
    claim_jobs,
    claimed_of_rows,
    find_lanes,
    new_lease,
)
from pgqueue.engine.finish import Written, outcome_statements, written_of_rows
from pgqueue.events import DutyFailed, JobsClaimed, LeasesLost, emit
from pgqueue.job import Ended, Job, Outcome, Requeued, State, storable_json
from pgqueue.worker.hand import Hand, Try
from pgqueue.worker.lanes import LaneBook
from pgqueue.worker.link import FIRST_WAIT, LONGEST_WAIT, Link, LinkDown
from pgqueue.worker.runner import Runner, Settled

BATCH = 500
"""Most outcomes written, and most jobs claimed, in one round."""

PREFETCH_SECONDS = 0.05
"""How much work beyond the free slots is fetched ahead, in time at the present pace."""

KEEP_WAITING = 1.0
"""Seconds after which claimed jobs that found no free slot are given back to the fleet."""

RETRIED = 3
"""How often a round that lost a deadlock or a serialization race is tried again."""

# A lost claim is only a job that runs later; what has ended is always durable.
_ASYNC_COMMIT = Statement("set local synchronous_commit = off")


class ClaimLoop:
    """The heart of a worker. `run` until `stop_claiming` was called and nothing is in hand."""

    def __init__(
        self,
        *,
        sql: Mapping[str, str],
        link: Link,
        runner: Runner,
        hand: Hand,
        lanes: LaneBook,
        tasks: Sequence[str],
        worker_id: Callable[[], int],
        concurrency: int,
        poll_interval: float,
        on_lost_reply: Callable[[], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._runner = runner
        self._hand = hand
        self._lanes = lanes
        self._tasks = tasks
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._on_lost_reply = on_lost_reply
        self._wake = asyncio.Event()
        self._handlers: dict[Try, asyncio.Task[Settled | None]] = {}
        self._claiming = True
        self._held_off = False
        self._has_more = False
        self._next_poll = 0.0
        self._pace = Pace(time.monotonic())
        self._took_at = 0.0
        self._found_nothing = False
        self._reconciled = 0
        self.lost_replies = 0
        """How often it is unknown what a claim took; see `reconciled`."""
        self.completed = 0
        self.failed = 0
        self.handed_back = 0
        self.idle = asyncio.Event()
        """Set whenever a look from the start of all lanes found nothing and nothing is in hand."""

    # -- from outside ----------------------------------------------------------

    def wake(self) -> None:
        """Look for work now."""
        self._next_poll = 0.0
        self._wake.set()

    def reconciled(self, lost_replies: int) -> None:
        """What the first so many lost replies had taken was given back."""
        self._reconciled = lost_replies
        self.wake()

    def stop_claiming(self) -> None:
        """Take nothing new, and give back what has not started."""
        self._claiming = False
        self._give_up_waiting()
        self._wake.set()

    def cancel_running(self) -> None:
        """End every handler; their jobs are handed back without costing an attempt."""
        for handler in self._handlers.values():
            handler.cancel()

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
                self._lost_reply()
            except Exception as error:  # noqa: BLE001 - told, and no error of ours may end a worker
                emit(DutyFailed("claim", f"{type(error).__name__}: {error}"))
                await self._link.close()
                self._lost_reply()
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                wait = FIRST_WAIT

    def _lost_reply(self) -> None:
        self.lost_replies += 1
        self._found_nothing = False
        self._on_lost_reply()

    async def _wait(self) -> None:
        if self._hand.ended or (self._has_more and self._room() > 0):
            # One turn of the event loop, so that handlers get theirs between two full rounds.
            await asyncio.sleep(0)
            return
        timeout = max(0.0, self._next_poll - time.monotonic()) if self._may_claim() else None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        self._wake.clear()

    async def _round(self) -> None:
        now = time.monotonic()
        # What was in hand before the look may have enqueued more than the look could see.
        was_empty = self._hand.is_empty
        self._found_nothing = False
        if self._hand.waiting and now - self._took_at > KEEP_WAITING:
            self._give_up_waiting()
        if self._may_claim() and now >= self._next_poll:
            await self._look_for_lanes(now)
        room = self._room() if self._may_claim() and self._has_more else 0
        if room > 0 or self._hand.ended:
            await self._write_and_claim(min(room, BATCH))
        if was_empty and self._found_nothing and self._reconciled == self.lost_replies:
            self.idle.set()
        elif not was_empty and self._hand.is_empty:
            self._next_poll = 0.0

    async def _write_and_claim(self, room: int) -> None:
        began = time.monotonic()
        sweep = self._lanes.is_sweep_due(began)
        lanes = self._lanes.order(sweep=sweep) if room > 0 else []
        outcomes = self._hand.take_ended(BATCH)
        try:
            claimed, written = await self._exchange(outcomes, lanes, room)
        except BaseException:
            self._hand.give_back(outcomes)
            raise
        self._hand.written()
        self._count(outcomes, written)
        if not lanes:
            return
        ended = time.monotonic()
        self._lanes.saw(claimed, sweep=sweep, seconds=ended - began, now=ended)
        self._has_more = claimed.locked > 0
        self._found_nothing = sweep and not claimed.locked
        self._take(claimed)

    async def _look_for_lanes(self, now: float) -> None:
        self._lanes.found(await self._link.execute(find_lanes(self._sql)))
        # The walk over the lanes passes dead entries, too: it may take 5 % of the time.
        cost = time.monotonic() - now
        wait = max(self._poll_interval, min(10.0, 20 * cost))
        self._next_poll = now + wait * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
        self._has_more = len(self._lanes) > 0
        self._found_nothing = not self._has_more

    async def _exchange(
        self, outcomes: Sequence[Outcome], lanes: Sequence[Lane], room: int
    ) -> tuple[Claimed, Written]:
        """Write outcomes and claim, in one transaction; apart where one of them is poison."""
        for attempt in range(1, RETRIED + 1):
            try:
                return await self._attempt(outcomes, lanes, room)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == RETRIED:
                    raise
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.CheckViolation) and attempt == 1:
                    # No partition for today, so nothing could be finished: make it, try again.
                    await self._link.execute(_one(Statement(self._sql["make_partitions"])))
                    continue
                if not outcomes or not _is_poison(error):
                    raise
                written = await self._write_apart(outcomes)
                claimed, _ = await self._attempt((), lanes, room)
                return claimed, written
        return await self._attempt(outcomes, lanes, room)

    async def _attempt(
        self, outcomes: Sequence[Outcome], lanes: Sequence[Lane], room: int
    ) -> tuple[Claimed, Written]:
        lease = new_lease()
        before = [NO_SEQSCAN] if outcomes else [NO_SEQSCAN, _ASYNC_COMMIT]
        writes = outcome_statements(self._sql, outcomes)
        claims = [self._claim(lanes, lease, room)] if lanes else []
        self._hand.leases_in_flight.add(lease)
        try:
            replies = await self._link.execute(_batch([*before, *writes, *claims]))
        finally:
            self._hand.leases_in_flight.discard(lease)
        first, last = len(before), len(before) + len(writes)
        written = written_of_rows(outcomes, replies[first:last])
        return claimed_of_rows(lease, replies[-1] if lanes else []), written

    def _claim(self, lanes: Sequence[Lane], lease: int, room: int) -> Statement:
        worker_id = self._worker_id()
        return claim_jobs(
            self._sql, lanes, self._tasks, worker_id=worker_id, lease=lease, limit=room
        )

    async def _write_apart(self, outcomes: Sequence[Outcome]) -> Written:
        """Write a batch that Postgres refuses, split down to the culprit, which fails instead."""
        try:
            _, written = await self._attempt(outcomes, (), 0)
        except psycopg.Error as error:
            if not _is_poison(error):
                raise
            if len(outcomes) == 1:
                return await self._write_refused(outcomes[0], error)
            half = len(outcomes) // 2
            first = await self._write_apart(outcomes[:half])
            second = await self._write_apart(outcomes[half:])
            return Written(first.applied | second.applied, first.lost + second.lost)
        return written

    async def _write_refused(self, outcome: Outcome, error: Exception) -> Written:
        message = str(error).splitlines()[0]
        plain = storable_json({"reason": "bad-result", "message": message.replace("\x00", "")})
        failed = Ended(outcome.job_id, outcome.lease, State.FAILED, error=plain)
        _, written = await self._attempt([failed], (), 0)
        return written

    # -- jobs in hand ----------------------------------------------------------

    def _may_claim(self) -> bool:
        return self._claiming and not self._held_off

    def _room(self) -> int:
        ahead = int(self._pace.per_second(time.monotonic()) * PREFETCH_SECONDS)
        used = len(self._hand) + len(self._runner.lingering)
        return self._concurrency + min(ahead, BATCH) - used

    def _take(self, claimed: Claimed) -> None:
        if not claimed.jobs:
            return
        self.idle.clear()
        self._took_at = time.monotonic()
        worker_id = self._worker_id()
        emit(JobsClaimed(worker_id, tuple(job.id for job in claimed.jobs), claimed.lease))
        order = sorted(claimed.jobs, key=lambda job: (-job.priority, job.run_at, job.id))
        self._hand.waiting.extend(order)
        if not self._may_claim():
            self._give_up_waiting()
        self._start_waiting()

    def _start_waiting(self) -> None:
        hand = self._hand
        while hand.waiting and len(hand.running) + len(self._runner.lingering) < self._concurrency:
            job = hand.waiting.popleft()
            hand.running[job.id, job.lease] = job
            handler = asyncio.create_task(self._runner.run(job), name=f"{job.task} {job.id}")
            self._handlers[job.id, job.lease] = handler
            handler.add_done_callback(functools.partial(self._ended, job))

    def _ended(self, job: Job, handler: asyncio.Task[Settled | None]) -> None:
        self._pace.count(time.monotonic())
        del self._hand.running[job.id, job.lease]
        del self._handlers[job.id, job.lease]
        settled = _settled(job, handler)
        if settled is not None and settled.written:
            self.completed += 1
        elif settled is not None:
            self._hand.ended.append(settled.outcome)
        self._start_waiting()
        self._wake.set()

    def _give_up_waiting(self) -> None:
        while self._hand.waiting:
            self._hand.ended.append(_handed_back(self._hand.waiting.popleft()))

    def _count(self, outcomes: Sequence[Outcome], written: Written) -> None:
        for outcome in outcomes:
            if outcome.job_id not in written.applied:
                continue
            if not isinstance(outcome, Ended):
                self.handed_back += outcome.uncounted
            elif outcome.state is State.COMPLETED:
                self.completed += 1
            elif outcome.state is State.FAILED:
                self.failed += 1
        if written.lost:
            ids = tuple(outcome.job_id for outcome in written.lost)
            emit(LeasesLost(self._worker_id(), ids))


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


def _is_poison(error: psycopg.Error) -> bool:
    """Whether a value in the batch is to blame (data, integrity, a limit of the program).

    A full disk or a read-only standby is nobody's fault: the batch is kept and tried again.
    """
    # What the driver itself refuses has no sqlstate.
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "")[:2] in {"23", "54"}


def _settled(job: Job, handler: asyncio.Task[Settled | None]) -> Settled | None:
    if handler.cancelled():  # before its first step
        return Settled(_handed_back(job))
    error = handler.exception()
    if error is None:
        return handler.result()
    # An error in our own code: the job waits a minute for better days and loses no try.
    emit(DutyFailed("run", f"{type(error).__name__}: {error}"))
    return Settled(Requeued(job.id, job.lease or 0, delay=60.0, uncounted=1))


def _handed_back(job: Job) -> Requeued:
    return Requeued(job.id, job.lease or 0, uncounted=1)


def _batch(statements: list[Statement]) -> Steps[list[Rows]]:
    replies: list[Rows] = yield Batch(tuple(statements))
    return replies


def _one(statement: Statement) -> Steps[Rows]:
    rows: Rows = yield statement
    return rows

"""What the whole fleet shares of maintenance: whichever worker takes a chore does it, the others
go on. A worker that dies in the middle loses the chore when its hold is over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from pgqueue.db.run import Statement, Steps
from pgqueue.engine.cancel import end_expired, end_marked
from pgqueue.engine.chores import Holder, Offer, finish_chore, held, take_chore
from pgqueue.engine.notify import ring
from pgqueue.engine.rescue import rescue_jobs
from pgqueue.engine.retention import apply_retention
from pgqueue.engine.sweep import sweep
from pgqueue.events import DaysDropped, DutyFailed, JobsRescued, emit
from pgqueue.schedule.release import Memory, settle_windows
from pgqueue.worker.following import follow_told
from pgqueue.worker.link import Link, LinkDown

HOLD = 10.0
"""Seconds a chore stays with a worker that says nothing more; also the longest statement in it."""

EXPIRY_ROUNDS = 20
"""Batches of 500 that one turn of the chore ends, before other duties get theirs."""

LOOKS = 3
"""How often in the time after which a silent worker is dead somebody looks for such."""

SHORTEST_WAIT = 0.05
CLOSE_GRACE = 5.0
ERROR_LIMIT = 500


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """One duty: its steps on a link, which return whether more is left to do at once.

    It comes again after the interval in the table `chores`, or after `at_most` seconds if that is
    sooner. One that may take long is `slow`: it gets a connection of its own while it works. One
    that is `looked_for` is not begun where `take_chore` sees that there is nothing to do.
    """

    name: str
    steps: Callable[[Link], Steps[bool]]
    at_most: float | None = None
    slow: bool = False
    looked_for: bool = False
    allowed: Callable[[], bool] = _always

    @property
    def offer(self) -> Offer:
        return Offer(self.name, self.at_most, self.looked_for)


class Chores:
    """Takes what is due, one after another; slow ones beside the rest."""

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        sql: Mapping[str, str],
        link: Link,
        conninfo: Callable[[], str],
        worker_id: Callable[[], int],
        hold: float,
        heartbeat_timeout: float,
        hurry: Callable[[], None],
    ) -> None:
        """`hurry` is called when a slow chore has ended that another one may have waited for."""
        self._chores = {chore.name: chore for chore in chores}
        self._sql = sql
        self._link = link
        self._slow_link = Link("chores", conninfo)
        self._worker_id = worker_id
        self._hold = hold
        self._heartbeat_timeout = heartbeat_timeout
        self._look_every = heartbeat_timeout / LOOKS
        self._hurry = hurry
        self._slow: asyncio.Task[None] | None = None
        self._slow_wait = False

    async def turn(self) -> float:
        """Do what is due, each chore once at most; returns the seconds until the next look."""
        longest = self._look_every
        for _ in self._chores:
            holder = Holder(self._worker_id(), self._hold)
            take = take_chore(self._sql, self._wanted(), holder, self._heartbeat_timeout)
            taken = await self._link.execute(take)
            if taken.name is not None:
                chore = self._chores[taken.name]
                longest = min(longest, await self._begin(chore, holder))
            if taken.name is None or taken.wait > SHORTEST_WAIT:
                wait = taken.wait * random.uniform(1.0, 1.1)  # noqa: S311 - jitter
                return min(longest, max(SHORTEST_WAIT, wait))
        return 0.0

    async def close(self) -> None:
        """Let a slow chore end, or leave it to the others."""
        if self._slow is not None:
            await asyncio.wait([self._slow], timeout=CLOSE_GRACE)
            self._slow.cancel()
            await asyncio.gather(self._slow, return_exceptions=True)
        await self._slow_link.close()

    def _wanted(self) -> list[Offer]:
        is_busy = self._slow is not None and not self._slow.done()
        self._slow_wait |= is_busy
        return [
            chore.offer
            for chore in self._chores.values()
            if chore.allowed() and not (chore.slow and is_busy)
        ]

    async def _begin(self, chore: Chore, holder: Holder) -> float:
        """Do it, or let it be done beside the rest; returns the seconds until it may come again."""
        if chore.slow:
            self._slow = asyncio.create_task(self._do_beside(chore, holder), name=chore.name)
            return self._look_every
        has_more = await self._do(chore, holder, self._link)
        return 0.0 if has_more else chore.at_most or self._look_every

    async def _do_beside(self, chore: Chore, holder: Holder) -> None:
        try:
            await self._do(chore, holder, self._slow_link)
        except LinkDown as error:
            emit(DutyFailed(chore.name, f"connection lost: {error}"))
        except Exception as error:  # noqa: BLE001 - told; the chore comes again when its hold is over
            emit(DutyFailed(chore.name, f"{type(error).__name__}: {error}"))
        await self._slow_link.close()
        if self._slow_wait:
            self._slow_wait = False
            self._hurry()

    async def _do(self, chore: Chore, holder: Holder, link: Link) -> bool:
        began = time.monotonic()
        error: str | None = None
        has_more = False
        try:
            steps = held(self._sql, chore.name, holder, chore.steps(link), time.monotonic)
            has_more = await link.execute(steps)
        except LinkDown:
            raise
        except Exception as failure:  # noqa: BLE001 - told and kept in the table
            error = _described(failure)
            emit(DutyFailed(chore.name, error))
        finish = finish_chore(
            self._sql,
            chore.name,
            holder,
            time.monotonic() - began,
            error,
            0.0 if has_more else chore.at_most,
        )
        await link.execute(finish)
        return has_more


def _described(failure: Exception) -> str:
    text = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, psycopg.errors.InsufficientPrivilege):
        # Making and dropping partitions is for the owner of the tables alone.
        text += "; let their owner run `pgq prune` every day, or run the workers as their owner"
    return text[:ERROR_LIMIT]


def worker_chores(
    sql: Mapping[str, str],
    *,
    heartbeat_timeout: float,
    channel: str | None,
    may_rescue: Callable[[], bool],
    wake: Callable[[], None],
) -> list[Chore]:
    """The chores that every worker offers to do; `wake` is called when jobs came back."""

    def rescue(_: Link) -> Steps[bool]:
        rescued = yield from rescue_jobs(sql, heartbeat_timeout)
        for one in rescued:
            emit(JobsRescued(one.worker_id, one.job_ids))
        if rescued:
            wake()
            # They may belong to queues of others.
            yield from ring(sql, channel, "")
        return False

    memory = Memory()
    return [
        Chore(
            name="rescue",
            steps=rescue,
            at_most=heartbeat_timeout / LOOKS,
            looked_for=True,
            allowed=may_rescue,
        ),
        Chore(name="expiry", steps=lambda _: _expiry(sql), looked_for=True),
        Chore(name="partitions", steps=lambda _: _partitions(sql), looked_for=True),
        Chore(name="retention", steps=lambda link: _retention(sql, link), slow=True),
        Chore(name="sweep", steps=lambda _: _sweep(sql), slow=True),
        Chore(name="windows", steps=lambda _: _windows(sql, memory), looked_for=True),
        Chore(name="workflows", steps=lambda _: _workflows(sql, channel, wake), looked_for=True),
    ]


def _expiry(sql: Mapping[str, str]) -> Steps[bool]:
    for _ in range(EXPIRY_ROUNDS):
        marked = yield from end_marked(sql)
        if not (yield from end_expired(sql)) and not marked:
            return False
    return True


def _partitions(sql: Mapping[str, str]) -> Steps[bool]:
    yield Statement(sql["make_partitions"])
    return False


def _retention(sql: Mapping[str, str], link: Link) -> Steps[bool]:
    pruned = yield from apply_retention(sql, concurrently=link.is_direct)
    if pruned.dropped or pruned.postponed:
        emit(DaysDropped(pruned.dropped, pruned.postponed))
    return False


def _sweep(sql: Mapping[str, str]) -> Steps[bool]:
    yield from sweep(sql)
    return False


def _workflows(
    sql: Mapping[str, str], channel: str | None, wake: Callable[[], None]
) -> Steps[bool]:
    yield from follow_told(sql, channel, wake)
    return False


def _windows(sql: Mapping[str, str], memory: Memory) -> Steps[bool]:
    yield from settle_windows(sql, memory)
    return False

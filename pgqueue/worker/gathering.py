"""Brings the jobs of a batch together: what waits in hand, what comes, what its own claim finds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from pgqueue.db.run import Rows, Statement, ask_at_once, time_of
from pgqueue.engine.claim import (
    LANE_START,
    PLACE,
    STEADY_PLAN,
    Claimed,
    ClaimedJob,
    Lane,
    claim_jobs,
    claimed_of_rows,
    new_lease,
)
from pgqueue.engine.limits import claim_limited, limited_of_rows
from pgqueue.events import DutyFailed, JobsClaimed, emit, is_wanted
from pgqueue.tasks.batching import Batching
from pgqueue.worker.hand import Hand, handed_back
from pgqueue.worker.link import Link, LinkDown

LOOK_EVERY = 0.1
"""Seconds between looks for more while a batch waits, and until it sees that the worker stops."""

CHEAP = 0.005
COST_SHARE = 20
"""A look that found nothing and took longer than so many seconds comes again after so many times
its own cost: it may have walked past many jobs of other tasks."""

CLAIM_GRACE = 2.0
"""Seconds that a batch which is stopped waits for the reply to its claim."""


Claim = tuple[Callable[[int, int], Statement], Callable[[int, Rows], Claimed]]
"""The statement for a lease and so many jobs, and how its answer is read."""


class Gathering:
    """The jobs of a call to come, the first one in front."""

    def __init__(self, leader: ClaimedJob, batching: Batching) -> None:
        self.jobs = [leader]
        self.size = batching.size
        self.ends = time.monotonic() + batching.max_wait
        self.full = asyncio.Event()
        self.is_open = True

    @property
    def room(self) -> int:
        return self.size - len(self.jobs) if self.is_open else 0

    def add(self, job: ClaimedJob) -> None:
        self.jobs.append(job)
        if len(self.jobs) >= self.size:
            self.full.set()


class Gatherer:
    """Fills gatherings; each claim goes for one of them, so that a worker hoards nothing."""

    def __init__(
        self,
        *,
        sql: Mapping[str, str],
        link: Link,
        hand: Hand,
        worker_id: Callable[[], int],
        lowest: Callable[[], int],
        is_claiming: Callable[[], bool],
        on_lost_reply: Callable[[], None],
        on_waiting: Callable[[], None],
    ) -> None:
        self._sql = sql
        self._link = link
        self._hand = hand
        self._worker_id = worker_id
        self._lowest = lowest
        self._is_claiming = is_claiming
        self._on_lost_reply = on_lost_reply
        self._on_waiting = on_waiting
        self._open: dict[str, Gathering] = {}
        self._next_claim: dict[str, float] = {}
        # One at a time on the link.
        self._asking = asyncio.Lock()

    def joined(self, job: ClaimedJob) -> bool:
        """Whether the job goes along with one that waits for such."""
        other = self._open.get(job.task)
        if other is None or other.room <= 0 or job.suspect:
            return False
        self._join(other, job)
        return True

    async def fill(self, gathering: Gathering) -> None:
        """Until it is full, its time is over, or the worker stops."""
        name = gathering.jobs[0].task
        self._open[name] = gathering
        try:
            self._take_waiting(name, gathering)
            while gathering.room > 0 and self._is_claiming():
                is_last = time.monotonic() >= gathering.ends
                if time.monotonic() >= self._next_claim.get(name, 0.0):
                    await self._claim_unhurt(name, gathering)
                if is_last:
                    break
                left = max(0.0, gathering.ends - time.monotonic())
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_EVERY, left)):
                        await gathering.full.wait()
            self._take_waiting(name, gathering)
        finally:
            gathering.is_open = False
            if self._open.get(name) is gathering:
                del self._open[name]

    def _take_waiting(self, name: str, gathering: Gathering) -> None:
        """What was fetched ahead already."""
        waiting = self._hand.waiting
        for _ in range(len(waiting)):
            job = waiting.popleft()
            if job.task == name and not job.suspect and gathering.room > 0:
                self._join(gathering, job)
            else:
                waiting.append(job)

    def _join(self, gathering: Gathering, job: ClaimedJob) -> None:
        self._hand.gathered[job.id, job.lease] = job
        gathering.add(job)

    async def _claim_unhurt(self, name: str, gathering: Gathering) -> None:
        # Never cancelled: a reply that is thrown away leaves jobs `running` for nobody.
        claiming = asyncio.create_task(self._claim(name, gathering), name="batch-claim")
        try:
            await asyncio.shield(claiming)
        except asyncio.CancelledError:
            gathering.is_open = False
            await asyncio.wait({claiming}, timeout=CLAIM_GRACE)
            raise

    async def _claim(self, name: str, gathering: Gathering) -> None:
        async with self._asking:
            began, first, found = time.monotonic(), gathering.jobs[0], 0
            # Dead entries lie before its place; and what others have handed back.
            for bound in ((time_of(first.run_at), first.id), LANE_START):
                if gathering.room > 0:
                    lane = Lane(first.queue, first.priority, bound)
                    found += await self._ask(gathering, self._of_lane(name, lane))
            if gathering.room > 0 and first.id in self._hand.limits:
                found += await self._ask(gathering, self._admitted(name, first.queue))
            now = time.monotonic()
            is_dear = found == 0 and now - began > CHEAP
            self._next_claim[name] = now + COST_SHARE * (now - began) if is_dear else 0.0

    def _of_lane(self, name: str, lane: Lane) -> Claim:
        def claim(lease: int, room: int) -> Statement:
            return claim_jobs(
                self._sql,
                [lane],
                [name],
                worker_id=self._worker_id(),
                lease=lease,
                limit=room,
                suspects=False,
            )

        return claim, claimed_of_rows

    def _admitted(self, name: str, queue: str) -> Claim:
        def claim(lease: int, room: int) -> Statement:
            return claim_limited(
                self._sql,
                [queue],
                [name],
                worker_id=self._worker_id(),
                lease=lease,
                limit=room,
                lowest=self._lowest(),
                suspects=False,
            )

        def read(lease: int, rows: Rows) -> Claimed:
            claimed, limits = limited_of_rows(lease, rows)
            self._hand.limits.update(limits)
            return claimed

        return claim, read

    async def _ask(self, gathering: Gathering, how: Claim) -> int:
        """How many it found."""
        lease = new_lease()
        claim, read = how
        self._hand.leases_in_flight.add(lease)
        try:
            steps = ask_at_once(STEADY_PLAN, claim(lease, gathering.room))
            *_, rows = await self._link.execute(steps)
            jobs = read(lease, rows).jobs
            self._take(gathering, jobs)
            return len(jobs)
        except LinkDown:
            self._on_lost_reply()
        except Exception as error:  # noqa: BLE001 - told; the batch runs with what it has
            emit(DutyFailed("batch", f"{type(error).__name__}: {error}"))
            await self._link.close()
            self._on_lost_reply()
        finally:
            # No turn of the event loop until they are in hand, or they would count as strays.
            self._hand.leases_in_flight.discard(lease)
        return 0

    def _take(self, gathering: Gathering, jobs: Sequence[ClaimedJob]) -> None:
        if jobs and is_wanted(JobsClaimed):
            emit(JobsClaimed(self._worker_id(), tuple(job.id for job in jobs), jobs[0].lease))
        self._hand.belong(jobs)
        for job in sorted(jobs, key=PLACE):
            if gathering.room > 0:
                self._join(gathering, job)
            elif gathering.is_open:
                # Others joined while it was asked: these are the next call's.
                self._hand.waiting.append(job)
            else:
                self._hand.end(handed_back(job))
        if self._hand.waiting:
            self._on_waiting()

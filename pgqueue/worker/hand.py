"""What a worker has in hand: claimed jobs that wait, run, or have ended and are not yet written."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pgqueue.engine.claim import ClaimedJob
from pgqueue.engine.rescue import InHand
from pgqueue.job import Outcome, Requeued

Try = tuple[int, int]
"""A job's id and lease: a handler that winds up slowly may still run an older try of its job."""


WINDOW_KEY = "schedule:"
"""What the unique keys of windows' jobs begin with."""

HELD_WAIT = 0.1
LONGEST_HELD_WAIT = 1.0
"""Seconds until endings whose rows somebody else holds are tried again; doubled each time."""


@dataclass(slots=True)
class Tally:
    """What a worker has done since it started."""

    completed: int = 0
    failed: int = 0
    handed_back: int = 0


class Hand:
    """Bookkeeping of one worker; changed on the event loop, read by the heart's thread."""

    def __init__(self) -> None:
        self.waiting: deque[ClaimedJob] = deque()
        self.running: dict[Try, ClaimedJob] = {}
        self.gathered: dict[Try, ClaimedJob] = {}
        """They wait for a running one, to go into one call with it: see worker/batches.py."""
        self.beside: dict[Try, ClaimedJob] = {}
        """They run in one call with a running one, and in its slot."""
        self.ended: list[Outcome] = []
        self.leases_in_flight: set[int] = set()
        self.tally = Tally()
        self.first_ended = 0.0
        """When the oldest of `ended` was put there, in monotonic seconds."""
        self.on_ended: Callable[[], None] = _nothing
        """Called when something is to be written: wakes the writer."""
        self.on_free: Callable[[], None] = _nothing
        """Called when a slot has become free, or what ended is written: wakes the claim loop."""
        self.limits: dict[int, tuple[str, ...]] = {}
        """The names of the limits of those that have some, by job."""
        self.freed: set[str] = set()
        """Limits whose jobs have ended: somebody may wait for them."""
        self.on_freed: Callable[[], None] = _nothing
        self.proven_until = math.inf
        """Until when our leases are safe, in monotonic seconds: nothing is begun after that."""
        self.windows: set[int] = set()
        """Which of them are the jobs of windows, that others may wait for."""
        self.on_window_ended: Callable[[], None] = _nothing
        self.workflows: dict[int, int] = {}
        """The workflow of each of them that is in one."""
        self.told_workflows: set[int] = set()
        """Workflows of jobs whose ends were written: others may wait for them."""
        self.on_workflow_told: Callable[[], None] = _nothing
        self._writing: list[Outcome] = []
        self._held: list[Outcome] = []
        self._known_held: set[int] = set()
        self._held_wait = HELD_WAIT
        self.held_until: float | None = None
        """When `release` has something to do; None while nothing is held up."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.running or self.ended or self._writing or self._held)

    def in_hand(self) -> InHand:
        """Everything the database may rightly believe to be running here."""
        ids = {job.id for job in (*self.waiting, *self.running.values())}
        ids |= {job_id for job_id, _ in (*self.gathered, *self.beside)}
        ids |= {outcome.job_id for outcome in (*self.ended, *self._writing, *self._held)}
        return InHand(frozenset(self.leases_in_flight), frozenset(ids))

    def holds_suspect(self) -> bool:
        """Whether a job is in hand that was held by a worker that died."""
        return any(job.suspect for job in (*self.waiting, *self.running.values()))

    def started_ids(self) -> list[int]:
        """The jobs whose handlers have started. Safe from another thread: atomic copies."""
        return [job_id for job_id, _ in (*self.running.copy(), *self.beside.copy())]

    def started(self) -> list[ClaimedJob]:
        """The same as jobs, for who writes what they say and sees whether they are wanted."""
        return [*self.running.values(), *self.beside.values()]

    def end(self, outcome: Outcome) -> None:
        """To be written by the writer, soon."""
        if not self.ended:
            self.first_ended = time.monotonic()
        self.ended.append(outcome)
        self.on_ended()

    def take_ended(self, most: int) -> list[Outcome]:
        """Outcomes to write now; `written` or `give_back` must follow."""
        self._writing, self.ended = self.ended[:most], self.ended[most:]
        return self._writing

    def written(self) -> None:
        self._writing = []

    def took(self, jobs: Sequence[ClaimedJob]) -> None:
        """Jobs that were claimed, in order. Of suspects only the first stays."""
        surplus = {job.id: job for job in [job for job in jobs if job.suspect][1:]}
        self.waiting.extend([job for job in jobs if job.id not in surplus] if surplus else jobs)
        for job in surplus.values():
            self.end(handed_back(job))
        keyed = [(job.id, job.unique_key) for job in jobs if job.unique_key is not None]
        self.windows.update([one for one, key in keyed if key.startswith(WINDOW_KEY)])
        self.belong(jobs)

    def belong(self, jobs: Iterable[ClaimedJob]) -> None:
        """Keep in mind which workflows these are in."""
        self.workflows.update(
            [(job.id, job.workflow_id) for job in jobs if job.workflow_id is not None]
        )

    def let_followers_go(self, written: Iterable[int]) -> None:
        """The ends of these jobs are in the database: windows and workflows may wait for them."""
        if self.workflows:
            told = {self.workflows.pop(one) for one in written if one in self.workflows}
            self.told_workflows |= told
            if told:
                self.on_workflow_told()
        if self.limits:
            self._free(written)
        if self.windows and (ended := self.windows.intersection(written)):
            self.windows -= ended
            self.on_window_ended()

    def _free(self, written: Iterable[int]) -> None:
        freed = [name for job_id in written for name in self.limits.pop(job_id, ())]
        if freed:
            self.freed.update(freed)
            self.on_freed()

    def hold(
        self, tried: Iterable[Outcome], held: Sequence[Outcome], now: float
    ) -> tuple[int, ...]:
        """Keep what of `tried` is `held`, its row in somebody else's hands, for a later round.

        Returns the ids that were not held up before.
        """
        ids = {outcome.job_id for outcome in held}
        self._known_held -= {outcome.job_id for outcome in tried} - ids
        new = ids - self._known_held
        self._known_held |= new
        if not self._known_held:
            self._held_wait = HELD_WAIT
        self._held += held
        # A pause that has begun is not made longer, or a stream of such endings would never end it.
        if held and self.held_until is None:
            self.held_until = now + self._held_wait
            self._held_wait = min(LONGEST_HELD_WAIT, 2 * self._held_wait)
        return tuple(sorted(new))

    def release(self, now: float) -> None:
        """Let what was held up be written again when its pause is over, after everything else."""
        if self.held_until is None or now < self.held_until:
            return
        self.ended += self._held
        self._held = []
        self.held_until = None

    def give_back(self, outcomes: Iterable[Outcome]) -> None:
        """They were not written, or nobody knows: keep them and try again."""
        self.ended = [*outcomes, *self.ended]
        self._writing = []


def handed_back(job: ClaimedJob) -> Requeued:
    """The outcome of a job that was claimed and not run, or not to its end: it costs no try."""
    return Requeued(job.id, job.lease, uncounted=1)


def _nothing() -> None: ...

"""What each deed means, in plain Python: the model that the database is compared with.

Nothing here knows SQL. Time is the model's own and stands still during a deed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

ERRORS_KEPT = 20
PERIOD = 60.0
LEGAL = {
    (None, "queued"),
    ("queued", "running"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
    ("queued", None),
    ("completed", None),
    ("failed", None),
    ("cancelled", None),
}
"""Which way a job may go in one step; None is not there (yet, or any more)."""


@dataclass(frozen=True)
class Row:
    """One job, live or finished. `reasons` are those of its errors."""

    state: str
    task: str
    queue: str
    priority: int
    payload: dict[str, Any]
    unique_key: str | None
    run_at: datetime
    scheduled_at: datetime
    attempt: int
    max_attempts: int
    expires_at: datetime | None
    lease: int | None = None
    worker_id: int | None = None
    started_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    crashes: int = 0
    suspect: bool = False
    percent: float | None = None
    reasons: tuple[str, ...] = ()
    result: Any = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Beat:
    """A worker's row."""

    at: datetime
    started: frozenset[int] = frozenset()


@dataclass
class Model:
    """Everything that the database should hold now."""

    now: datetime
    jobs: dict[int, Row] = field(default_factory=dict)
    workers: dict[int, Beat] = field(default_factory=dict)
    periods: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    deeds: list[str] = field(default_factory=list)
    effects: list[tuple[int, int]] = field(default_factory=list)

    def copy(self) -> Model:
        return Model(
            self.now,
            dict(self.jobs),
            dict(self.workers),
            dict(self.periods),
            set(self.paused),
            list(self.deeds),
            list(self.effects),
        )

    # -- asking ------------------------------------------------------------------------

    def of_state(self, *states: str) -> set[int]:
        return {job_id for job_id, row in self.jobs.items() if row.state in states}

    def live(self) -> set[int]:
        return self.of_state("queued", "running")

    def holder(self, key: str) -> int | None:
        """The live job with this key."""
        return next((i for i in sorted(self.live()) if self.jobs[i].unique_key == key), None)

    def silent(self, timeout: float) -> set[int]:
        """Workers that hold jobs or have a row, and do not beat."""
        running = {self.jobs[job_id].worker_id for job_id in self.of_state("running")}
        ids = {worker_id for worker_id in running if worker_id is not None} | self.workers.keys()
        return {worker_id for worker_id in ids if self._is_silent(worker_id, timeout)}

    def _is_silent(self, worker_id: int, timeout: float) -> bool:
        beat = self.workers.get(worker_id)
        return beat is None or beat.at < self.now - timedelta(seconds=timeout)

    def lanes(self) -> list[tuple[str, int]]:
        queued = [self.jobs[job_id] for job_id in self.of_state("queued")]
        return sorted({(row.queue, row.priority) for row in queued})

    def due(
        self,
        lanes: Iterable[tuple[str, int]],
        tasks: Collection[str],
        *,
        suspects: bool,
        locked: Collection[int] = (),
    ) -> list[int]:
        """What a claim may take, in the order in which it has to."""
        found: list[int] = []
        for lane in lanes:
            inside = [
                (row.run_at, job_id)
                for job_id, row in self.jobs.items()
                if row.state == "queued"
                and (row.queue, row.priority) == lane
                and row.queue not in self.paused
                and row.run_at <= self.now
                and row.task in tasks
                and (suspects or not row.suspect)
                and job_id not in locked
            ]
            found += [job_id for _, job_id in sorted(inside)]
        return found

    # -- deeds -------------------------------------------------------------------------

    def claim(self, ids: Collection[int], lease: int, worker_id: int) -> None:
        for job_id in ids:
            row = self.jobs[job_id]
            self.jobs[job_id] = replace(
                row,
                state="running",
                attempt=row.attempt + 1,
                lease=lease,
                worker_id=worker_id,
                started_at=self.now,
            )

    def end(self, job_id: int, state: str, reason: str | None = None, result: Any = None) -> None:
        row = self.jobs[job_id]
        self.jobs[job_id] = replace(
            row,
            state=state,
            reasons=_with(row.reasons, reason),
            result=result,
            finished_at=self.now,
        )

    def requeue(self, job_id: int, delay: float, uncounted: int, reason: str | None = None) -> None:
        row = self.jobs[job_id]
        # Who is to be cancelled waits for nothing: the next claim ends it.
        wait = timedelta(seconds=0 if row.cancel_requested_at else delay)
        self._back(
            job_id,
            run_at=max(row.run_at, self.now + wait),
            attempt=max(0, row.attempt - uncounted),
            reasons=_with(row.reasons, reason),
        )

    def rescue(self, worker_id: int, timeout: float, locked: Collection[int] = ()) -> set[int]:
        """The jobs taken back from this worker, if it is still silent."""
        if not self._is_silent(worker_id, timeout):
            return set()
        beat = self.workers.get(worker_id)
        taken = self._held_by(worker_id) - set(locked)
        for job_id in taken:
            row = self.jobs[job_id]
            assert row.started_at is not None
            has_waited = beat and row.started_at < beat.at and job_id not in beat.started
            run_at = max(row.run_at, self.now)
            if has_waited:
                self._back(job_id, run_at=run_at, attempt=max(0, row.attempt - 1))
                continue
            self._back(
                job_id,
                run_at=run_at,
                max_attempts=max(row.max_attempts, row.attempt + 1),
                crashes=row.crashes + row.suspect,
                suspect=True,
                reasons=_with(row.reasons, "worker-died"),
            )
        return taken

    def strays(
        self,
        worker_id: int,
        before: datetime,
        in_flight: Collection[int],
        held: Collection[int],
        locked: Collection[int] = (),
    ) -> set[int]:
        """What the worker does not know of, taken back."""
        taken = {
            job_id
            for job_id in self._held_by(worker_id) - set(locked) - set(held)
            if (row := self.jobs[job_id]).lease not in in_flight
            and row.started_at is not None
            and row.started_at < before
        }
        for job_id in taken:
            self.requeue(job_id, 0, 1)
        return taken

    def forget(self, worker_id: int) -> bool:
        if worker_id not in self.workers or self._held_by(worker_id):
            return False
        del self.workers[worker_id]
        return True

    def cancel(self, ids: Iterable[int], reason: str = "cancelled") -> dict[int, str]:
        """What became of each id that was live: `cancelled` or `marked`."""
        became = {}
        for job_id in set(ids) & self.live():
            row = self.jobs[job_id]
            at = row.cancel_requested_at or self.now
            self.jobs[job_id] = replace(row, cancel_requested_at=at)
            became[job_id] = "marked"
            if row.state == "queued":
                self.end(job_id, "cancelled", reason)
                became[job_id] = "cancelled"
        return became

    def expired(self) -> set[int]:
        return {
            job_id
            for job_id in self.of_state("queued")
            if (at := self.jobs[job_id].expires_at) is not None and at <= self.now
        }

    def hurry(self, ids: Iterable[int]) -> set[int]:
        """Those of the ids that waited for their time."""
        later = {i for i in set(ids) & self.of_state("queued") if self.jobs[i].run_at > self.now}
        for job_id in later:
            row = self.jobs[job_id]
            most = max(row.max_attempts, row.attempt + 1)
            self.jobs[job_id] = replace(row, run_at=self.now, max_attempts=most)
        return later

    def revive(self, ids: Iterable[int], tries: Mapping[str, int]) -> tuple[set[int], set[int]]:
        """Failed and cancelled ones that came back, and those whose unique key is taken."""
        back: set[int] = set()
        refused: set[int] = set()
        for job_id in sorted(set(ids) & self.of_state("failed", "cancelled")):
            row = self.jobs[job_id]
            if row.unique_key is not None and self.holder(row.unique_key) is not None:
                refused.add(job_id)
                continue
            keeps_expiry = row.expires_at is not None and row.expires_at > self.now
            self._back(
                job_id,
                run_at=self.now,
                max_attempts=max(row.max_attempts, row.attempt + tries.get(row.task, 1)),
                expires_at=row.expires_at if keeps_expiry else None,
                cancel_requested_at=None,
                crashes=0,
                suspect=False,
                percent=None,
                result=None,
                finished_at=None,
            )
            back.add(job_id)
        return back, refused

    def delete(self, ids: Iterable[int]) -> set[int]:
        """Those that did not run: gone, with their keys' periods."""
        gone = (set(ids) & self.jobs.keys()) - self.of_state("running")
        for job_id in gone:
            key = self.jobs.pop(job_id).unique_key
            if key is not None and self.periods.get(key, (0,))[0] == job_id:
                del self.periods[key]
        return gone

    def _held_by(self, worker_id: int) -> set[int]:
        return {i for i in self.of_state("running") if self.jobs[i].worker_id == worker_id}

    def _back(self, job_id: int, **changes: Any) -> None:
        row = self.jobs[job_id]
        self.jobs[job_id] = replace(row, state="queued", lease=None, worker_id=None, **changes)


def _with(reasons: Sequence[str], reason: str | None) -> tuple[str, ...]:
    return tuple([*reasons, *([reason] if reason else [])][-ERRORS_KEPT:])

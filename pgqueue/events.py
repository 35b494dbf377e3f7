"""What happened, as frozen values, and `emit`: no wording here, that is observe/.

A subscriber is called in the thread that emits, before the emitting code goes on. It should be
quick. What it raises is reported to the `pgqueue.events` logger and does not disturb the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker is registered and begins to claim; `health` is the address of its endpoint."""

    worker_id: int
    queues: tuple[str, ...]
    concurrency: int
    tasks: tuple[str, ...]
    database: str
    health: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    """A worker claims nothing new any more; `running` jobs may still end."""

    worker_id: int
    reason: str
    running: int


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker has left; what it did not end was handed back."""

    worker_id: int
    completed: int
    failed: int
    handed_back: int


@dataclass(frozen=True, slots=True)
class SupervisorStarted(Event):
    """The first of several worker processes works, the others follow; `health` answers for all."""

    processes: int
    health: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerProcessEnded(Event):
    """A supervised process ended unasked; another one starts in `restart_in` seconds.

    Without `restart_in` it ended uncleanly while all were asked to stop.
    """

    process: int
    pid: int
    manner: str
    seconds: float
    restart_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerFenced(Event):
    """The worker could not prove that it lives, and stopped its own handlers."""

    worker_id: int
    silent_seconds: float
    running: int


@dataclass(frozen=True, slots=True)
class LoopStalled(Event):
    """A handler blocks the event loop; the heart beats on, other jobs of this worker wait."""

    worker_id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobsClaimed(Event):
    """Jobs came into a worker's hands; their handlers start as slots get free."""

    worker_id: int
    job_ids: tuple[int, ...]
    lease: int


@dataclass(frozen=True, slots=True)
class JobsAdmitted(Event):
    """A pass of admission let limited jobs of these queues in; it took so many seconds."""

    count: int
    queues: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A handler starts."""

    job_id: int
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """The handler has ended; `state` is what the worker asks the database to write."""

    job_id: int
    task: str
    attempt: int
    state: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JobRequeued(Event):
    """The handler has ended and the job comes again after `delay` seconds."""

    job_id: int
    task: str
    attempt: int
    delay: float
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LeasesLost(Event):
    """Endings that changed nothing: the jobs were no longer this worker's."""

    worker_id: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EndingsHeldUp(Event):
    """Somebody's open transaction holds the rows of these jobs; their ends are written after it."""

    worker_id: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StraysHandedBack(Event):
    """Claims whose reply never arrived were given back without costing an attempt."""

    worker_id: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobsRescued(Event):
    """The jobs of a worker whose heartbeat stopped were taken back."""

    dead_worker_id: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DaysDropped(Event):
    """Retention dropped partitions; postponed ones wait for a reader to end its transaction."""

    dropped: tuple[str, ...]
    postponed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerStats(Event):
    """What a worker did in the last `seconds`, and what waits; every PGQUEUE_STATS_INTERVAL.

    `queued` counts due and future jobs, exactly up to 10,000; above that (`queued_is_exact` is
    false) it is the planner's estimate. `next_runs` are the next three schedules. `unknown_tasks`
    is what TasksUnknown tells.
    """

    worker_id: int
    seconds: float
    completed: int
    failed: int
    handed_back: int
    active: int
    queued: int
    queued_is_exact: bool
    schedules: int
    next_runs: tuple[str, ...]
    unknown_tasks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TasksUnknown(Event):
    """Due jobs in a worker's queues are of tasks that no live worker knows: task, number of jobs.

    Told when a worker starts, by a burst worker at its end. Of each queue and priority the first
    1,000 due jobs are looked at, and 20 tasks are named.
    """

    worker_id: int
    jobs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ConnectionLost(Event):
    """A part of the worker lost its connection and reconnects until it succeeds."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionRestored(Event):
    """That part is connected again, after `seconds`."""

    part: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DutyFailed(Event):
    """A maintenance duty raised; it is tried again at its next turn."""

    duty: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleTicked(Event):
    """A due schedule was handled: so many windows, each with its job."""

    schedule: str
    windows: int
    next_run_at: str


@dataclass(frozen=True, slots=True)
class ScheduleFailed(Event):
    """A schedule could not be ticked; it is tried again, later each time."""

    schedule: str
    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class ScheduleLate(Event):
    """A fire was handled `seconds` after it was due: nobody had ticked."""

    schedule: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ScheduleUnhealthy(Event):
    """A schedule's windows fail again and again, told at each further failure; or one is stuck,
    told once by each worker that sees it.
    """

    schedule: str
    reason: str


@dataclass(frozen=True, slots=True)
class SchedulesUndeclared(Event):
    """Code has declared these schedules before and does not any more; they go on firing.

    Remove them with `pgq schedule remove`, or declare them again.
    """

    schedules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkflowFinished(Event):
    """The last node of a workflow has ended; `state` is completed, failed or cancelled."""

    workflow_id: int
    state: str


Subscriber = Callable[[Event], object]
Kinds = Collection[type[Event]] | None
"""Kinds of events; None means all."""

_subscribers: tuple[tuple[Subscriber, Kinds], ...] = ()
_wanted: dict[type[Event], bool] = {}


def subscribe(subscriber: Subscriber, kinds: Kinds = None) -> Callable[[], None]:
    """Call `subscriber` with every event of these kinds; returns the function that ends it."""
    global _subscribers  # noqa: PLW0603 - one process has one list of subscribers
    entry = (subscriber, kinds)
    _subscribers = (*_subscribers, entry)
    _wanted.clear()

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603 - see above
        _subscribers = tuple(other for other in _subscribers if other is not entry)
        _wanted.clear()

    return unsubscribe


def is_wanted(kind: type[Event]) -> bool:
    """Whether anybody listens: at thousands of jobs a second an event for nobody is dear."""
    known = _wanted.get(kind)
    if known is None:
        known = any(kinds is None or kind in kinds for _, kinds in _subscribers)
        _wanted[kind] = known
    return known


def emit(event: Event) -> None:
    """Tell every subscriber that listens to this kind."""
    for subscriber, kinds in _subscribers:
        if kinds is not None and type(event) not in kinds:
            continue
        try:
            subscriber(event)
        except Exception:  # noqa: BLE001 - whatever a subscriber raises, the queue goes on
            _log.exception("an event subscriber failed on %r", event)

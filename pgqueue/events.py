"""What happened, as frozen values, and `emit`: no wording here, that is observe/.

A subscriber is called in the thread that emits, before the emitting code goes on. It should be
quick. What it raises is reported to the `pgqueue.events` logger and does not disturb the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    worker_id: int
    queues: tuple[str, ...]
    concurrency: int
    tasks: tuple[str, ...]
    database: str


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    worker_id: int
    reason: str
    running: int


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    worker_id: int
    completed: int
    failed: int
    handed_back: int


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
    worker_id: int
    job_ids: tuple[int, ...]
    lease: int


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
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
class ConnectionLost(Event):
    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionRestored(Event):
    part: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DutyFailed(Event):
    """A maintenance duty raised; it is tried again at its next turn."""

    duty: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleTicked(Event):
    schedule: str
    windows: int
    next_run_at: str


@dataclass(frozen=True, slots=True)
class ScheduleFailed(Event):
    schedule: str
    reason: str
    failures: int


Subscriber = Callable[[Event], object]
_subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call `subscriber` with every event from now on; returns the function that ends it."""
    global _subscribers  # noqa: PLW0603 - one process has one list of subscribers
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603 - see above
        _subscribers = tuple(other for other in _subscribers if other is not subscriber)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell every subscriber."""
    for subscriber in _subscribers:
        try:
            subscriber(event)
        except Exception:  # noqa: BLE001 - whatever a subscriber raises, the queue goes on
            _log.exception("an event subscriber failed on %r", event)

"""Turns events into log lines: all the wording of the engine stands here.

JSON where nobody watches (stderr is no terminal), readable where somebody does. Completed jobs are
logged at debug: at thousands a second a line each would cost more than the jobs.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from pgqueue import events
from pgqueue.events import Event

Line = tuple[str, str]
"""Level and message."""

_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}


def configure(level: str = "info") -> None:
    """Send structlog and standard logging to stderr, and every event of pgqueue with them."""
    number = _NUMBERS[level.lower()]
    tty = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if tty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # A line in one write: several processes may share this stream.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=number, handlers=[_StandardLogs()], force=True)
    kinds = set(_WORDINGS) if number <= logging.DEBUG else set(_WORDINGS) - _FOR_DEBUG
    events.subscribe(_logging_from(number), kinds)


class _StandardLogs(logging.Handler):
    """Standard logging, ours and the libraries', in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def line_of(event: Event) -> Line | None:
    """The event in words; None for kinds that are not logged."""
    wording = _WORDINGS.get(type(event))
    return wording(event) if wording else None


def _logging_from(number: int) -> Callable[[Event], None]:
    """Writes events of this level and above; what is below costs a look at its wording."""

    def log_event(event: Event) -> None:
        line = line_of(event)
        if line is not None and _NUMBERS[line[0]] >= number:
            _write(event, *line)

    return log_event


def _write(event: Event, level: str, message: str) -> None:
    facts = {name: value for name, value in asdict(event).items() if value is not None}
    if isinstance(facts.get("error"), str):
        facts |= _short_error(facts.pop("error"))
    getattr(structlog.get_logger(), level)(message, **facts)


def _short_error(error: str) -> dict[str, Any]:
    described = json.loads(error)
    return {name: described[name] for name in ("reason", "type", "message") if name in described}


def _stats(event: Any) -> Line:
    waiting = f"{event.queued}" if event.queued_is_exact else f"about {event.queued}"
    unknown = f"; {_unknown(event.unknown_tasks)}" if event.unknown_tasks else ""
    return "info", (
        f"{event.completed} completed and {event.failed} failed in {event.seconds:.0f} s, "
        f"{event.active} active, {waiting} queued, {event.schedules} schedules{unknown}"
    )


def _unknown(jobs: Sequence[tuple[str, int]]) -> str:
    named = ", ".join(f"{task} ({count})" for task, count in jobs)
    return f"due jobs wait for tasks that no live worker knows: {named}"


def _ended(event: Any) -> Line:
    level = {"completed": "debug", "cancelled": "info"}.get(event.state, "error")
    return level, f"job {event.state}"


_FOR_DEBUG = {events.JobStarted}
"""Kinds that only show at debug: whoever does not, need not even hear of them."""

_WORDINGS: dict[type[Event], Callable[[Any], Line]] = {
    events.WorkerStarted: lambda _: ("info", "worker started"),
    events.WorkerStopping: lambda _: ("info", "worker is stopping"),
    events.WorkerStopped: lambda _: ("info", "worker stopped"),
    events.SupervisorStarted: lambda _: ("info", "supervisor started"),
    events.WorkerProcessEnded: lambda event: (
        "error",
        f"worker process {event.process} {event.manner}"
        + ("" if event.restart_in is None else " and is started again"),
    ),
    events.WorkerFenced: lambda _: (
        "error",
        "worker could not prove that it lives and stopped its handlers",
    ),
    events.LoopStalled: lambda _: (
        "warning",
        "a handler blocks the event loop: use a sync function or a thread for such work",
    ),
    events.JobStarted: lambda _: ("debug", "job started"),
    events.JobEnded: _ended,
    events.JobRequeued: lambda event: (
        "warning" if event.error else "info",
        "job failed and will be tried again" if event.error else "job put back",
    ),
    events.LeasesLost: lambda _: ("warning", "endings came too late: the leases were lost"),
    events.EndingsHeldUp: lambda _: (
        "warning",
        "an open transaction holds rows of jobs that have ended: they are written when it is over",
    ),
    events.StraysHandedBack: lambda _: ("warning", "claims without a reply were handed back"),
    events.JobsRescued: lambda _: ("warning", "jobs of a dead worker were taken back"),
    events.DaysDropped: lambda event: (
        "info",
        "old days of finished jobs were dropped"
        if event.dropped
        else "old days of finished jobs wait for a reader to end its transaction",
    ),
    events.WorkerStats: _stats,
    events.TasksUnknown: lambda event: ("warning", _unknown(event.jobs)),
    events.ConnectionLost: lambda _: ("warning", "database connection lost, reconnecting"),
    events.ConnectionRestored: lambda _: ("info", "database connection restored"),
    events.DutyFailed: lambda _: ("error", "a duty failed and is tried again at its next turn"),
    events.ScheduleTicked: lambda event: (
        "info" if event.windows else "debug",
        "schedule ticked",
    ),
    events.ScheduleFailed: lambda _: ("error", "a schedule cannot be ticked"),
    events.ScheduleLate: lambda _: ("warning", "a schedule was ticked late"),
    events.WorkflowFinished: lambda event: (
        "info" if event.state == "completed" else "warning",
        "a workflow has ended",
    ),
    events.ScheduleUnhealthy: lambda _: ("error", "a schedule is not healthy"),
    events.SchedulesUndeclared: lambda _: (
        "warning",
        "schedules that code no longer declares go on: declare or remove them",
    ),
}

"""How a job is enqueued: the options of `using`, their checks, and the job that they describe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from pgqueue.errors import ConfigError
from pgqueue.job import Json, NewJob
from pgqueue.tasks.names import checked_queue
from pgqueue.tasks.values import (
    LONGEST_WAIT,
    checked_delay,
    checked_priority,
    checked_span,
    checked_tags,
    checked_text,
    checked_texts,
    checked_time,
    in_utc,
    seconds_of,
)

UNIQUE_MODES = ("skip", "replace", "raise")
UNIQUE_SCOPES = ("task", "queue", "tenant")

TENANT_LIMIT = 200
KEY_LIMIT = 2_000
"""Bytes. The longest scope adds 521, enqueue_v1 takes 2,600, and an index entry holds 2,704."""

Scope = Literal["task", "queue", "tenant"]


class GivenOptions(TypedDict, total=False):
    """What `using` takes, for editors and type checkers; each is explained in docs/enqueue.md."""

    queue: str
    priority: int
    run_at: datetime | None
    delay: float | timedelta
    tenant: str | None
    tags: Iterable[str]
    unique_key: str | None
    unique_mode: Literal["skip", "replace", "raise"]
    unique_for: float | timedelta | None
    unique_scope: Scope | Iterable[Scope]
    unique_wait: float
    timeout: float | timedelta | None
    expires_at: datetime | None
    connection: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is enqueued; what a task does not say is these defaults."""

    queue: str = "default"
    priority: int = 5
    run_at: datetime | None = None
    delay: float | timedelta = 0.0
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    unique_key: str | None = None
    unique_mode: str = "skip"
    unique_for: float | timedelta | None = None
    unique_scope: tuple[str, ...] = ()
    unique_wait: float = 5.0
    timeout: float | None = None
    expires_at: datetime | None = None
    connection: Any = None

    def __post_init__(self) -> None:
        checked_queue(self.queue)
        checked_priority(self.priority)
        checked_time("run_at", self.run_at)
        checked_time("expires_at", self.expires_at)
        if checked_delay(self.delay) and self.run_at is not None:
            raise ConfigError("run_at and delay exclude each other: give one of them")
        checked_text("tenant", self.tenant, TENANT_LIMIT)
        self._check_unique()
        if self.timeout is not None:
            checked_span("timeout", self.timeout)

    def _check_unique(self) -> None:
        if self.unique_mode not in UNIQUE_MODES:
            raise ConfigError(
                f"unique_mode {self.unique_mode!r} is not valid: {', '.join(UNIQUE_MODES)}"
            )
        unknown = [name for name in self.unique_scope if name not in UNIQUE_SCOPES]
        if unknown:
            raise ConfigError(
                f"unique_scope {unknown[0]!r} is not valid: any of {', '.join(UNIQUE_SCOPES)}"
            )
        checked_text("unique_key", self.unique_key, KEY_LIMIT)
        if self.unique_for is not None and self.unique_key is None:
            raise ConfigError("unique_for needs a unique_key")
        if self.unique_for is not None:
            checked_span("unique_for", self.unique_for)
        checked_span("unique_wait", self.unique_wait, LONGEST_WAIT)

    @property
    def delay_seconds(self) -> float:
        return seconds_of(self.delay)


OPTION_NAMES = frozenset(Options.__dataclass_fields__)

TASK_OPTIONS = frozenset(
    {"name", "retry", "isolation", "memory_limit", "batch", "max_wait", "limits", "ordered_by"}
)
"""What only a task can be given, beside the options of its jobs."""

_CALLED_HERE = {
    "countdown": "delay",
    "schedule_in": "delay",
    "eta": "run_at",
    "schedule_at": "run_at",
    "scheduled_at": "run_at",
    "expires": "expires_at",
    "time_limit": "timeout",
    "queueing_lock": "unique_key",
    "lock": "ordered_by",
    "concurrency": "limits",
    "rate_limit": "limits",
    "max_retries": "retry",
    "max_attempts": "retry",
}
"""What other queues call it."""


def changed(options: Options, changes: Mapping[str, Any], further: Collection[str] = ()) -> Options:
    """`options` with `changes`; raises ConfigError for a name that is no option, nor `further`."""
    unknown = sorted(set(changes) - OPTION_NAMES)
    if unknown:
        raise ConfigError(_no_option(unknown[0], OPTION_NAMES | set(further)))
    if "tags" in changes:
        changes = {**changes, "tags": checked_tags(changes["tags"])}
    if isinstance(changes.get("unique_scope"), str):
        changes = {**changes, "unique_scope": (changes["unique_scope"],)}
    elif "unique_scope" in changes:
        scope = checked_texts("unique_scope", changes["unique_scope"])
        changes = {**changes, "unique_scope": scope}
    if isinstance(changes.get("timeout"), timedelta):
        changes = {**changes, "timeout": seconds_of(changes["timeout"])}
    return replace(options, **changes)


def _no_option(name: str, known: Collection[str]) -> str:
    listed = f"the options are {', '.join(sorted(known))}"
    if name in TASK_OPTIONS:
        return f"unknown option {name!r}: it is for @pgq.task({name}=…); here {listed}"
    near = [_CALLED_HERE.get(name, ""), *get_close_matches(name, sorted(known), n=1)]
    meant = next((one for one in near if one in known), None)
    hint = "" if meant is None else f" (did you mean {meant!r}?)"
    return f"unknown option {name!r}{hint}: {listed}"


def scoped_key(task: str, options: Options) -> str | None:
    """The unique key as it is stored: with its scope in front, so that one index serves all."""
    if options.unique_key is None or not options.unique_scope:
        return options.unique_key
    values = {"task": task, "queue": options.queue, "tenant": options.tenant or ""}
    scope = ",".join(
        f"{name}={values[name]}" for name in UNIQUE_SCOPES if name in options.unique_scope
    )
    return f"{scope}|{options.unique_key}"


def new_job(
    task: str,
    payload: Mapping[str, Json],
    options: Options,
    max_attempts: int,
    limits: tuple[str, ...] = (),
    *,
    text: str | None = None,
) -> NewJob:
    """The job that these options describe; `text` is its payload as JSON, if that was written."""
    return NewJob(
        task=task,
        queue=options.queue,
        payload=payload,
        priority=options.priority,
        run_at=in_utc(options.run_at),
        delay=options.delay_seconds,
        tenant=options.tenant,
        tags=options.tags,
        unique_key=scoped_key(task, options),
        unique_mode=options.unique_mode,
        unique_for=None if options.unique_for is None else seconds_of(options.unique_for),
        unique_wait=options.unique_wait,
        max_attempts=max_attempts,
        timeout=options.timeout,
        expires_at=in_utc(options.expires_at),
        limits=limits,
        text=text,
    )

"""A task: a function that is enqueued by name, with its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, update_wrapper
from typing import Any, Generic, Protocol, TypeVar

from pgqueue.errors import ConfigError, PayloadInvalid
from pgqueue.job import Job, Json, NewJob, NewJobs, Retry
from pgqueue.tasks.batching import batch_signature_of, checked_batching
from pgqueue.tasks.isolation import checked_isolation, checked_memory
from pgqueue.tasks.limits import TaskLimits, check_fields
from pgqueue.tasks.names import checked_queue, checked_task
from pgqueue.tasks.payload import Signature, signature_of
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

R = TypeVar("R")


UNIQUE_MODES = ("skip", "replace", "raise")
UNIQUE_SCOPES = ("task", "queue", "tenant")

TENANT_LIMIT = 200
KEY_LIMIT = 2_000
"""Bytes. The longest scope adds 521, enqueue_v1 takes 2,600, and an index entry holds 2,704."""


class Sender(Protocol):
    """Who brings new jobs into the database; the app is one."""

    def send(self, new: NewJob, connection: Any) -> Job: ...
    def send_many(self, new: NewJobs, connection: Any) -> list[int]: ...
    async def asend(self, new: NewJob, connection: Any) -> Job: ...
    async def asend_many(self, new: NewJobs, connection: Any) -> list[int]: ...


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


_OPTION_NAMES = frozenset(Options.__dataclass_fields__)


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """`options` with `changes`; raises ConfigError for a name that is no option."""
    unknown = sorted(set(changes) - _OPTION_NAMES)
    if unknown:
        known = ", ".join(sorted(_OPTION_NAMES))
        raise ConfigError(f"unknown option {unknown[0]!r}: the options are {known}")
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
) -> NewJob:
    """The job that these options describe."""
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
    )


_NO_LIMITS = TaskLimits()


class Task(Generic[R]):
    """A registered function. Calling it runs it here and now; `enqueue` makes a job of it."""

    def __init__(
        self,
        function: Callable[..., R],
        *,
        name: str,
        sender: Sender,
        options: Options,
        retry: Retry,
        isolation: str | None = None,
        memory_limit: int | None = None,
        batch: int | None = None,
        max_wait: float | None = None,
        limits: TaskLimits = _NO_LIMITS,
    ) -> None:
        self.name = checked_task(name)
        if not isinstance(retry, Retry):
            raise ConfigError(f"task {name!r}: retry {retry!r} is not valid: use Retry(attempts=…)")
        self.function = function
        self.options = options
        self.retry = retry
        self.is_async = inspect.iscoroutinefunction(function)
        self.isolation = checked_isolation(name, function, isolation)
        self.memory_limit = checked_memory(name, self.isolation, memory_limit)
        self.batching = checked_batching(name, batch, max_wait, self.isolation)
        self.limits = limits
        self._limit_names = limits.names
        self._sender = sender
        update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self.function(*args, **kwargs)

    @cached_property
    def signature(self) -> Signature:
        """Read at first use: annotations may name what is defined further down."""
        read = signature_of if self.batching is None else batch_signature_of
        signature = read(self.name, self.function)
        if self.limits.fields and not signature.open_ended:
            check_fields(self.name, self.limits, signature.names)
        if self.isolation == "process" and signature.connection_parameter:
            raise ConfigError(
                f"task {self.name!r}: a connection cannot go into another process: "
                'use job.transaction(), or leave isolation="process" out'
            )
        return signature

    @cached_property
    def _as_declared(self) -> Enqueuing:
        return Enqueuing(self, self.options)

    def checked_payload(self, payload: Any) -> Mapping[str, Any]:
        """The payload, as given by somebody who knows only the name; raises PayloadInvalid."""
        if not isinstance(payload, Mapping) or not all(isinstance(name, str) for name in payload):
            raise PayloadInvalid(self.name, [("payload", "must be a mapping of argument names")])
        return payload

    def using(self, **options: Any) -> Enqueuing:
        """This task with other options: queue, priority, run_at, delay, tenant, tags, …

        `connection` takes a psycopg connection, or a SQLAlchemy Connection, Session or
        AsyncSession: the job is then part of the caller's transaction.
        """
        return Enqueuing(self, changed(self.options, options))

    def payload(self, *args: Any, **kwargs: Any) -> NewJob:
        """A job with these arguments as a value, for a workflow; raises PayloadInvalid."""
        return self.using().payload(*args, **kwargs)

    def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Insert a job with these arguments and return it; raises PayloadInvalid."""
        return self._as_declared.enqueue(*args, **kwargs)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> Job:
        """`enqueue` for async code."""
        return await self._as_declared.aenqueue(*args, **kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """Insert one job per mapping of arguments, all or none; returns their ids."""
        return self._as_declared.enqueue_many(rows)

    async def aenqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """`enqueue_many` for async code."""
        return await self._as_declared.aenqueue_many(rows)


@dataclass(frozen=True, slots=True)
class Enqueuing:
    """A task together with the options of the jobs to come: what `using` returns."""

    task: Task[Any]
    options: Options = field(default_factory=Options)

    def using(self, **options: Any) -> Enqueuing:
        """The same with further options."""
        return Enqueuing(self.task, changed(self.options, options))

    def payload(self, *args: Any, **kwargs: Any) -> NewJob:
        """A job with these arguments as a value, for a workflow; raises PayloadInvalid."""
        if self.options.connection is not None:
            raise ConfigError("a connection is for enqueue: give it to that of the workflow")
        return self._new(args, kwargs)

    def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Insert a job with these arguments and return it; raises PayloadInvalid."""
        return self._sender.send(self._new(args, kwargs), self.options.connection)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> Job:
        """`enqueue` for async code."""
        return await self._sender.asend(self._new(args, kwargs), self.options.connection)

    def enqueue_json(self, payload: Mapping[str, Any]) -> Job:
        """Insert a job with a payload that came as JSON; raises PayloadInvalid."""
        return self._sender.send(self._new_of_json(payload), self.options.connection)

    async def aenqueue_json(self, payload: Mapping[str, Any]) -> Job:
        """`enqueue_json` for async code."""
        return await self._sender.asend(self._new_of_json(payload), self.options.connection)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """Insert one job per mapping of arguments, all or none; returns their ids.

        Nothing is inserted when one of them raises PayloadInvalid.
        """
        return self._sender.send_many(self._new_many(rows), self.options.connection)

    async def aenqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """`enqueue_many` for async code."""
        return await self._sender.asend_many(self._new_many(rows), self.options.connection)

    @property
    def _sender(self) -> Sender:
        return self.task._sender  # noqa: SLF001 - the two classes are one thing in two steps

    def _new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NewJob:
        payload = self.task.signature.payload(args, kwargs)
        return self._made(payload)

    def _new_of_json(self, payload: Mapping[str, Any]) -> NewJob:
        stored = self.task.signature.payload_of_json(self.task.checked_payload(payload))
        return self._made(stored)

    def _new_many(self, rows: Iterable[Mapping[str, Any]]) -> NewJobs:
        signature = self.task.signature
        payloads = [signature.payload_text(self._arguments(row)) for row in rows]
        return NewJobs(self._made({}), payloads)

    def _made(self, payload: Mapping[str, Json]) -> NewJob:
        task = self.task
        limits = task._limit_names  # noqa: SLF001 - the two classes are one thing in two steps
        return new_job(task.name, payload, self.options, task.retry.attempts, limits)

    def _arguments(self, row: Any) -> Mapping[str, Any]:
        if not isinstance(row, Mapping):
            message = f"{row!r} is no mapping: enqueue_many takes one of arguments per job"
            raise PayloadInvalid(self.task.name, [("rows", message)])
        return self.task.checked_payload(row)

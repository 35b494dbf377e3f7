"""A task: a function that is enqueued by name, with its defaults."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, update_wrapper
from typing import Any, Generic, Protocol, TypeVar

from pgqueue.errors import ConfigError
from pgqueue.job import Job, Json, NewJob, Retry
from pgqueue.tasks.isolation import checked_isolation, checked_memory
from pgqueue.tasks.names import checked_queue, checked_task
from pgqueue.tasks.payload import Signature, signature_of

R = TypeVar("R")

LATEST = datetime(9000, 1, 1, tzinfo=UTC)
LONGEST_DELAY = 100 * 366 * 86_400
"""Seconds. Postgres goes on where Python's years end: a row with such a time would be written, and
no worker could read it."""

UNIQUE_KEY_LIMIT = 2_000
"""Bytes of a unique key: an index entry holds 2,704."""


UNIQUE_MODES = ("skip", "replace", "raise")
UNIQUE_SCOPES = ("task", "queue", "tenant")


class Sender(Protocol):
    """Who brings new jobs into the database; the app is one."""

    def send(self, new: NewJob, connection: Any) -> Job: ...
    def send_many(self, new_jobs: list[NewJob], connection: Any) -> list[int]: ...
    async def asend(self, new: NewJob, connection: Any) -> Job: ...
    async def asend_many(self, new_jobs: list[NewJob], connection: Any) -> list[int]: ...


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
        if type(self.priority) is not int or self.priority not in range(10):
            raise ConfigError(f"priority {self.priority!r} is not valid: 0 to 9, higher first")
        self._check_times()
        if self.timeout is not None and (not _is_seconds(self.timeout) or self.timeout == 0):
            raise ConfigError(f"timeout {self.timeout!r} is not valid: more than 0 seconds")
        for name, text in (("tenant", self.tenant), ("unique_key", self.unique_key)):
            if text is not None:
                _check_text(name, text)
        if self.unique_key is not None and len(self.unique_key.encode()) > UNIQUE_KEY_LIMIT:
            size = len(self.unique_key.encode())
            raise ConfigError(f"unique_key has {size} bytes, and {UNIQUE_KEY_LIMIT} is the most")

    def _check_times(self) -> None:
        if not isinstance(self.run_at, datetime | None):
            raise ConfigError(f"run_at {self.run_at!r} is not valid: use an aware datetime")
        if self.run_at is not None and self.run_at.utcoffset() is None:
            raise ConfigError(
                f"run_at {self.run_at.isoformat()} has no time zone: use an aware datetime"
            )
        if self.run_at is not None and self.run_at > LATEST:
            raise ConfigError(
                f"run_at {self.run_at.isoformat()} is not valid: the year {LATEST.year} at most"
            )
        if not _is_seconds(self.delay_seconds):
            raise ConfigError(f"delay {self.delay!r} is not valid: 0 seconds or more")
        if self.delay_seconds > LONGEST_DELAY:
            raise ConfigError(f"delay {self.delay!r} is not valid: 100 years at most")
        if self.run_at is not None and self.delay_seconds:
            raise ConfigError("run_at and delay exclude each other: give one of them")
        if self.expires_at is not None and self.expires_at.utcoffset() is None:
            raise ConfigError(
                f"expires_at {self.expires_at.isoformat()} has no time zone: use an aware datetime"
            )
        self._check_unique()

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
        if self.unique_for is not None and self.unique_key is None:
            raise ConfigError("unique_for needs a unique_key")
        if self.unique_for is not None and not 0 < seconds_of(self.unique_for) < math.inf:
            raise ConfigError(f"unique_for {self.unique_for!r} is not valid: more than 0 seconds")
        if not 0 < self.unique_wait < math.inf:
            raise ConfigError(f"unique_wait {self.unique_wait!r} is not valid: more than 0 seconds")

    @property
    def delay_seconds(self) -> float:
        return seconds_of(self.delay)


def seconds_of(span: float | timedelta) -> float:
    """A span in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else span


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _check_text(name: str, text: Any) -> None:
    """Raises ConfigError unless `text` is a string that Postgres can store."""
    try:
        storable = isinstance(text, str) and b"\x00" not in text.encode()
    except UnicodeEncodeError:
        storable = False
    if not storable:
        raise ConfigError(f"{name} {text!r} is not valid: text without NUL or lone surrogates")


_OPTION_NAMES = frozenset(Options.__dataclass_fields__)


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """`options` with `changes`; raises ConfigError for a name that is no option."""
    unknown = sorted(set(changes) - _OPTION_NAMES)
    if unknown:
        known = ", ".join(sorted(_OPTION_NAMES))
        raise ConfigError(f"unknown option {unknown[0]!r}: the options are {known}")
    if "tags" in changes:
        changes = {**changes, "tags": _texts("tags", changes["tags"])}
    if isinstance(changes.get("unique_scope"), str):
        changes = {**changes, "unique_scope": (changes["unique_scope"],)}
    elif "unique_scope" in changes:
        scope = _texts("unique_scope", changes["unique_scope"])
        changes = {**changes, "unique_scope": scope}
    return replace(options, **changes)


def _texts(what: str, texts: Any) -> tuple[str, ...]:
    is_list = isinstance(texts, Iterable) and not isinstance(texts, str)
    texts = tuple(texts) if is_list else texts
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{what} {texts!r} are not valid: a list of strings")
    for text in texts:
        _check_text(what.removesuffix("s"), text)
    return tuple(texts)


def scoped_key(task: str, options: Options) -> str | None:
    """The unique key as it is stored: with its scope in front, so that one index serves all."""
    if options.unique_key is None or not options.unique_scope:
        return options.unique_key
    values = {"task": task, "queue": options.queue, "tenant": options.tenant or ""}
    scope = ",".join(
        f"{name}={values[name]}" for name in UNIQUE_SCOPES if name in options.unique_scope
    )
    return f"{scope}|{options.unique_key}"


def new_job(task: str, payload: Mapping[str, Json], options: Options, max_attempts: int) -> NewJob:
    """The job that these options describe."""
    return NewJob(
        task=task,
        queue=options.queue,
        payload=payload,
        priority=options.priority,
        run_at=options.run_at,
        delay=options.delay_seconds,
        tenant=options.tenant,
        tags=options.tags,
        unique_key=scoped_key(task, options),
        unique_mode=options.unique_mode,
        unique_for=None if options.unique_for is None else seconds_of(options.unique_for),
        unique_wait=options.unique_wait,
        max_attempts=max_attempts,
        timeout=options.timeout,
        expires_at=options.expires_at,
    )


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
    ) -> None:
        self.name = checked_task(name)
        self.function = function
        self.options = options
        self.retry = retry
        self.is_async = inspect.iscoroutinefunction(function)
        self.isolation = checked_isolation(name, function, isolation)
        self.memory_limit = checked_memory(name, self.isolation, memory_limit)
        self._sender = sender
        update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self.function(*args, **kwargs)

    @cached_property
    def signature(self) -> Signature:
        """Read at first use: annotations may name what is defined further down."""
        signature = signature_of(self.name, self.function)
        if self.isolation == "process" and signature.connection_parameter:
            raise ConfigError(
                f"task {self.name!r}: a connection cannot go into another process: "
                'use job.transaction(), or leave isolation="process" out'
            )
        return signature

    def using(self, **options: Any) -> Enqueuing:
        """This task with other options: queue, priority, run_at, delay, tenant, tags, …

        `connection` takes a psycopg connection, or a SQLAlchemy Connection, Session or
        AsyncSession: the job is then part of the caller's transaction.
        """
        return Enqueuing(self, changed(self.options, options))

    def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Insert a job with these arguments and return it; raises PayloadInvalid."""
        return self.using().enqueue(*args, **kwargs)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> Job:
        """`enqueue` for async code."""
        return await self.using().aenqueue(*args, **kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """Insert one job per mapping of arguments, in one statement; returns their ids."""
        return self.using().enqueue_many(rows)

    async def aenqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """`enqueue_many` for async code."""
        return await self.using().aenqueue_many(rows)


@dataclass(frozen=True, slots=True)
class Enqueuing:
    """A task together with the options of the jobs to come: what `using` returns."""

    task: Task[Any]
    options: Options = field(default_factory=Options)

    def using(self, **options: Any) -> Enqueuing:
        """The same with further options."""
        return Enqueuing(self.task, changed(self.options, options))

    def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Insert a job with these arguments and return it; raises PayloadInvalid."""
        return self._sender.send(self._new(args, kwargs), self.options.connection)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> Job:
        """`enqueue` for async code."""
        return await self._sender.asend(self._new(args, kwargs), self.options.connection)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> list[int]:
        """Insert one job per mapping of arguments, in one statement; returns their ids.

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
        return new_job(self.task.name, payload, self.options, self.task.retry.attempts)

    def _new_many(self, rows: Iterable[Mapping[str, Any]]) -> list[NewJob]:
        return [self._new((), row) for row in rows]

"""A task: a function that is enqueued by name, with its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, update_wrapper
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar, Unpack

from pgqueue.errors import ConfigError, PayloadInvalid
from pgqueue.job import Job, Json, NewJob, NewJobs, Retry
from pgqueue.tasks.batching import batch_signature_of, checked_batching
from pgqueue.tasks.isolation import checked_isolation, checked_memory
from pgqueue.tasks.limits import TaskLimits, check_fields
from pgqueue.tasks.names import checked_task
from pgqueue.tasks.options import GivenOptions, Options, changed, new_job
from pgqueue.tasks.payload import Signature, signature_of

R = TypeVar("R")

AT_ONCE = 250
"""Payloads validated at a time by `enqueue_many`."""


class Sender(Protocol):
    """Who brings new jobs into the database; the app is one."""

    def send(self, new: NewJob, connection: Any) -> Job: ...
    def send_many(self, new: NewJobs, connection: Any) -> list[int]: ...
    async def asend(self, new: NewJob, connection: Any) -> Job: ...
    async def asend_many(self, new: NewJobs, connection: Any) -> list[int]: ...


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

    def using(self, **options: Unpack[GivenOptions]) -> Enqueuing:
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

    def using(self, **options: Unpack[GivenOptions]) -> Enqueuing:
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
        return self._made(*self.task.signature.payload_and_text(args, kwargs))

    def _new_of_json(self, payload: Mapping[str, Any]) -> NewJob:
        stored = self.task.signature.payload_of_json(self.task.checked_payload(payload))
        return self._made(stored)

    def _new_many(self, rows: Iterable[Mapping[str, Any]]) -> NewJobs:
        if isinstance(rows, list | tuple):
            blocks = self._texts_of(tuple(rows))
            # What is wrong with all is wrong with the first: told before anything is sent.
            first = next(blocks, [])
            return NewJobs(self._made({}), len(rows), chain([first], blocks))
        texts = self.task.signature.payload_texts(self._arguments(row) for row in rows)
        blocks_made = [texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE)]
        return NewJobs(self._made({}), len(texts), blocks_made)

    def _texts_of(self, rows: tuple[Any, ...]) -> Iterator[list[bytes]]:
        payload_texts = self.task.signature.payload_texts
        for start in range(0, len(rows), AT_ONCE):
            part: Iterable[Mapping[str, Any]] = rows[start : start + AT_ONCE]
            if not _are_plain(part):
                part = map(self._arguments, part)
            yield payload_texts(part)

    def _made(self, payload: Mapping[str, Json], text: str | None = None) -> NewJob:
        task = self.task
        limits = task._limit_names  # noqa: SLF001 - the two classes are one thing in two steps
        return new_job(task.name, payload, self.options, task.retry.attempts, limits, text=text)

    def _arguments(self, row: Any) -> Mapping[str, Any]:
        if _are_plain((row,)):
            return row  # type: ignore[no-any-return]  # a dict
        if not isinstance(row, Mapping):
            message = f"{row!r} is no mapping: enqueue_many takes one mapping of arguments per job"
            raise PayloadInvalid(self.task.name, [("rows", message)])
        return self.task.checked_payload(row)


def _are_plain(rows: Iterable[Any]) -> bool:
    """Whether all are dicts with text as keys, as is the rule: told in C."""
    return {dict}.issuperset(map(type, rows)) and {str}.issuperset(
        map(type, chain.from_iterable(rows))
    )

"""The plain values of the queue: frozen, no I/O, no clock."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

from pgqueue.errors import JobDetached

if TYPE_CHECKING:
    import psycopg

Json = Any
"""Whatever `json.loads` gives: dict, list, str, int, float, bool or None."""


class State(StrEnum):
    """Where a job is in its life; the last three are final."""

    QUEUED = "queued"
    BLOCKED = "blocked"
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOST_ATTEMPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed try is followed by another: policy only, no state.

    `attempts` counts all tries. With `delays`, `delays[i]` seconds follow failed try `i + 1` and
    the last one repeats. Without, the wait is exponential: `base * factor ** (try - 1)` seconds,
    at most `cap`, spread by `jitter` (0.1 = up to 10 % more) so that a crowd does not come back at
    one instant. Errors of the types in `never`, and those not in `only`, end the job at once.
    `decide(attempt, error)` replaces all of this but `attempts`: it returns the seconds to wait, or
    None to end the job.
    """

    attempts: int = 1
    delays: Sequence[float] | None = None
    base: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.1
    only: type[BaseException] | tuple[type[BaseException], ...] = (Exception,)
    never: type[BaseException] | tuple[type[BaseException], ...] = ()
    decide: Callable[[int, BaseException], float | None] | None = None

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ValueError(
                f"Retry(attempts={self.attempts}): at least 1, the first try counts; "
                f"at most {MOST_ATTEMPTS:,}"
            )
        if self.delays is not None and not (self.delays and _are_waits(*self.delays)):
            raise ValueError(f"Retry(delays={self.delays}): one or more waits of 0 s or longer")
        if not _are_waits(self.base, self.factor, self.cap, self.jitter):
            raise ValueError("Retry(base, factor, cap, jitter): numbers, none negative or endless")
        for name in ("only", "never"):
            _check_error_types(name, getattr(self, name))
        if self.decide is not None and not callable(self.decide):
            raise ValueError(f"Retry(decide={self.decide!r}): a function of (attempt, error)")


def _are_waits(*numbers: Any) -> bool:
    return all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers)


def _check_error_types(name: str, types: Any) -> None:
    found = types if isinstance(types, tuple) else (types,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in found):
        raise ValueError(f"Retry({name}={types!r}): types of errors, such as (OSError,)")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be inserted. `run_at` None means now, by the database's clock."""

    task: str
    queue: str
    payload: Mapping[str, Json]
    priority: int = 5
    run_at: datetime | None = None
    delay: float = 0.0
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    unique_key: str | None = None
    unique_mode: str = "skip"
    unique_for: float | None = None
    unique_wait: float = 5.0
    max_attempts: int = 1
    timeout: float | None = None
    expires_at: datetime | None = None
    headers: Mapping[str, str] | None = None
    limits: tuple[str, ...] = ()
    """As declared: {tenant} and the like are filled in by the database."""
    text: str | None = field(default=None, repr=False, compare=False)
    """The payload as JSON, where it was written already."""


@dataclass(frozen=True, slots=True)
class NewJobs:
    """Jobs to be inserted that differ in nothing but their payloads.

    `blocks` gives the payloads as JSON text, in order, so many at a time. It may make them as they
    are asked for, once, and raise PayloadInvalid then: all is to be rolled back.
    """

    like: NewJob
    count: int
    blocks: Iterable[Sequence[bytes]]

    def at_hand(self) -> NewJobs:
        """The same with all payloads made; raises PayloadInvalid."""
        return replace(self, blocks=list(self.blocks))

    def texts(self) -> list[bytes]:
        """All payloads; raises PayloadInvalid."""
        return list(chain.from_iterable(self.blocks))

    def one_by_one(self) -> list[NewJob]:
        """The same as single jobs."""
        return [replace(self.like, payload=json.loads(text)) for text in self.texts()]


NOT_HERE = (
    "does not run here: ask the Job that its handler is handed, in a parameter annotated Job; "
    "from outside there are pgq.get_job, pgq.show_job and pgq.cancel"
)


class JobHandle(Protocol):
    """What a running job may ask of its worker (tasks/running.py)."""

    @property
    def cancelled(self) -> bool: ...
    @property
    def steps(self) -> JobSteps: ...
    def transaction(self) -> JobTransaction: ...
    def progress(self, percent: float, message: str) -> None: ...
    def log(self, message: str, level: str) -> None: ...


class JobSteps(Protocol):
    """The durable steps of a running job (tasks/stepping.py)."""

    def step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...
    def sleep(self, how_long: float | timedelta | datetime, name: str | None) -> Any: ...
    def wait_for(
        self, event: str, key: Any, timeout: float | timedelta | None, name: str | None
    ) -> Any: ...


class ResultReader(Protocol):
    """Who can wait for a job's end; the app is one."""

    def result(self, job: Job, timeout: float | None) -> Json: ...
    async def aresult(self, job: Job, timeout: float | None) -> Json: ...  # noqa: ASYNC109 - public


class JobTransaction(
    AbstractContextManager["psycopg.Connection[Any]"],
    AbstractAsyncContextManager["psycopg.AsyncConnection[Any]"],
    Protocol,
):
    """A short transaction that proves the lease at its commit; `with` or `async with`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs` or `finished_jobs`. Times are aware and in UTC."""

    id: int
    task: str
    queue: str
    priority: int
    state: State
    payload: Mapping[str, Json]
    tenant: str | None
    tags: tuple[str, ...]
    unique_key: str | None
    run_at: datetime
    scheduled_at: datetime
    attempt: int
    max_attempts: int
    lease: int | None
    worker_id: int | None
    started_at: datetime | None
    created_at: datetime
    timeout: float | None
    headers: Mapping[str, str]
    expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    crashes: int = 0
    suspect: bool = False
    workflow_id: int | None = None
    _handle: JobHandle | None = field(default=None, repr=False, compare=False)
    _results: ResultReader | None = field(default=None, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """True once the worker wants this handler to stop."""
        return self._running().cancelled

    def transaction(self) -> JobTransaction:
        """A short transaction for this job's effects, with the lease proven at its commit.

        `with` gives a psycopg.Connection, `async with` a psycopg.AsyncConnection. Raises LeaseLost
        at the end, and rolls back, if the job is no longer this worker's.
        """
        return self._running().transaction()

    def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the function once, keep what it returns, and give that back on every later try.

        For an async handler an awaitable; the function may be sync or async. What it returns is
        JSON, and comes back as JSON: 1 MB at most. With a parameter annotated as a psycopg
        connection its writes and the note that it is done are one commit. What raises keeps
        nothing. Raises LeaseLost if the job is no longer this worker's, and ConfigError for a name
        that came before in this run of the handler.
        """
        return self._running().steps.step(name, function, args, kwargs)

    def sleep(self, how_long: float | timedelta | datetime, *, name: str | None = None) -> Any:
        """Sleep so many seconds, or until then, without a slot; awaited in an async handler.

        The handler is left (by an exception that is no Exception) and called anew when the time
        has come, which costs no try; then this returns at once. Without a name it is the first,
        second, … sleep of the handler.
        """
        return self._running().steps.sleep(how_long, name)

    def wait_for(
        self,
        event: str,
        key: str | int,
        *,
        timeout: float | timedelta | None = None,
        name: str | None = None,
    ) -> Any:
        """Wait for `pgq.emit(event, key, …)` without a slot; awaited in an async handler.

        Returns what the event carried. It counts from the job's creation on, each event once for
        each job. Without it the handler is left as by `sleep`. Raises EventTimeout after `timeout`
        seconds, counted from the first try that came here.
        """
        return self._running().steps.wait_for(event, key, timeout, name)

    def progress(self, percent: float, message: str = "") -> None:
        """Say how far this try is, 0 to 100; seen by others within about half a second."""
        self._running().progress(percent, message)

    def log(self, message: str, level: str = "info") -> None:
        """Write a line to the job's own log, which outlives the try and the job's ending."""
        self._running().log(message, level)

    def result(self, timeout: float | None = None) -> Json:
        """Wait for the end and return what the handler returned.

        Waits for ever without `timeout` (seconds). Raises JobFailed when it failed or was
        cancelled, ResultTimeout, and JobNotFound when retention has dropped it.
        """
        return self._reader().result(self, timeout)

    async def aresult(self, timeout: float | None = None) -> Json:  # noqa: ASYNC109 - the public name
        """`result` for async code."""
        return await self._reader().aresult(self, timeout)

    def _reader(self) -> ResultReader:
        if self._results is None:
            raise JobDetached(self.id, f"has no app to ask: use pgq.get_job({self.id})")
        return self._results

    def _running(self) -> JobHandle:
        if self._handle is None:
            raise JobDetached(self.id, NOT_HERE)
        return self._handle


def with_results(job: Job, reader: ResultReader) -> Job:
    """The same job, just made and in nobody's hands yet, with who can wait for its end."""
    # Not by `replace`: the constructor, once more, takes a tenth of the time of an enqueue.
    object.__setattr__(job, "_results", reader)
    return job


class Ended(NamedTuple):
    """The job is over: move it to `finished_jobs`."""

    job_id: int
    lease: int
    state: State
    result: str | None = None
    error: str | None = None


class Requeued(NamedTuple):
    """The job comes again after `delay` seconds; `uncounted` tries are given back.

    One that `waits` (the waits' names) comes at once if an event was delivered meanwhile.
    """

    job_id: int
    lease: int
    delay: float = 0.0
    uncounted: int = 0
    error: str | None = None
    waits: tuple[str, ...] = ()


Outcome = Ended | Requeued


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

# An escaped NUL: the backslashes before the `u` are odd in number.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def is_storable(text: Any) -> TypeGuard[str]:
    """Whether this is text that Postgres can hold: no NUL, no lone surrogates."""
    if not isinstance(text, str) or "\x00" in text:
        return False
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


class NotStorable(ValueError):
    """A value that Postgres' jsonb cannot hold; the message says why."""


def storable_json(value: Json, *, limit: int | None = None) -> str:
    """`value` as JSON text that jsonb is sure to accept, at most `limit` bytes.

    Strict on purpose: NaN, NUL and lone surrogates would abort the whole batch they travel in
    (one `"\\u0000"` stops a worker for good). Raises NotStorable.
    """
    try:
        text = _ENCODER.encode(value)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise NotStorable(f"not JSON: {error}") from None
    return checked_json(text, size, limit)


def checked_json(text: str, size: int, limit: int | None) -> str:
    """JSON text of `size` bytes, if jsonb holds what it says; raises NotStorable."""
    if "\\u0000" in text and _NUL.search(text):
        raise NotStorable("holds a NUL character, which Postgres cannot store")
    if limit is not None and size > limit:
        raise NotStorable(f"{size:,} bytes, and {limit:,} is the most")
    return text

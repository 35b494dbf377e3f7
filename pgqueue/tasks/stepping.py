"""Durable steps of one running try: done once, given back on every later try.

The same rules for async and for sync handlers: what is decided stands in plain methods, and only
the asking differs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import psycopg

from pgqueue.db.run import Steps, arun, run
from pgqueue.errors import ConfigError, EventTimeout, Parked
from pgqueue.job import Json, NotStorable
from pgqueue.tasks.names import checked_event
from pgqueue.tasks.payload import connection_parameter
from pgqueue.tasks.values import LONGEST, checked_text, checked_time, seconds_of

if TYPE_CHECKING:
    from pgqueue.tasks.running import RunningJob

NAME_LIMIT = 200
KEY_LIMIT = 1_000
"""Bytes."""

Key = tuple[str, str]


class Kept(Protocol):
    """What stands written of a step; engine.steps.Kept and Standing are such."""

    @property
    def is_over(self) -> bool: ...
    @property
    def has_come(self) -> bool: ...
    @property
    def result(self) -> Json: ...


class Standing(Kept, Protocol):
    @property
    def seconds_left(self) -> float | None: ...


class Book(Protocol):
    """Where steps are kept; engine.steps.StepBook is one. Every write raises LeaseLost."""

    def find(self, job_id: int) -> Steps[Mapping[Key, Kept]]: ...
    def keep(self, job_id: int, lease: int, name: str, result: str) -> Steps[Json]: ...
    def sleep(
        self, job_id: int, lease: int, name: str, seconds: float | None, until: datetime | None
    ) -> Steps[float]: ...
    def wait(  # noqa: PLR0917 - the wait in full
        self, job_id: int, lease: int, name: str, event: str, key: str, timeout: float | None
    ) -> Steps[Standing]: ...


class Stepping:
    """The steps of one try. `storable` makes JSON text of what a step gave, or raises."""

    def __init__(self, running: RunningJob, book: Book, storable: Callable[[Any], str]) -> None:
        self._running = running
        self._book = book
        self._storable = storable
        self._kept: Mapping[Key, Kept] | None = None
        self._taken: set[Key] = set()
        self._counts: dict[str, int] = {}
        self._open: dict[str, None] = {}
        """Waits whose event has not come, as far as is known: several beside each other."""
        self._parked: Parked | None = None

    # -- what handlers call ------------------------------------------------------

    def step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The step's result; for an async handler an awaitable of it."""
        call = partial(self._astep if self._running.is_async else self._step, name)
        return call(function, args, kwargs)

    def sleep(self, how_long: float | timedelta | datetime, name: str | None) -> Any:
        """None once the sleep is over; until then the handler is left."""
        call = self._asleep if self._running.is_async else self._sleep
        return call(how_long, name)

    def wait_for(
        self, event: str, key: Any, timeout: float | timedelta | None, name: str | None
    ) -> Any:
        """What the event carried; until it comes the handler is left."""
        call = self._await_for if self._running.is_async else self._wait_for
        return call(event, key, timeout, name)

    # -- steps -------------------------------------------------------------------

    def _step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Json:
        self._check_step(name, function)
        if inspect.iscoroutinefunction(function):
            raise ConfigError(f"step {name!r}: an async function needs an async handler")
        self._load()
        if kept := self._take(("step", name)):
            return kept.result
        self._running.check_told()
        place = connection_parameter(function, psycopg.Connection, f"step {name!r}")
        if place is None:
            value = function(*args, **kwargs)
            return self._running.ask(self._keep(name, value))
        with self._running.open() as (connection, began):
            value = function(*args, **kwargs, **{place: connection})
            self._running.check_told()
            return run(connection, self._keep_within(name, value, began))

    async def _astep(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Json:
        self._check_step(name, function)
        await self._aload()
        self._check_left()  # by what runs beside it
        if kept := self._take(("step", name)):
            return kept.result
        place = connection_parameter(function, psycopg.AsyncConnection, f"step {name!r}")
        if place is None:
            value = await _awaited(function(*args, **kwargs))
            return await self._running.aask(self._keep(name, value))
        async with self._running.aopen() as (connection, began):
            value = await _awaited(function(*args, **kwargs, **{place: connection}))
            return await arun(connection, self._keep_within(name, value, began))

    def _check_step(self, name: str, function: Any) -> None:
        self._check_left()
        _checked_name("step", name)
        if not callable(function):
            raise ConfigError(
                f"step {name!r} takes a function and its arguments, not {type(function).__name__}: "
                f"job.step({name!r}, function, …)"
            )

    def _keep(self, name: str, value: Any) -> Steps[Json]:
        running = self._running
        return self._book.keep(running.job_id, running.lease, name, self._stored(name, value))

    def _stored(self, name: str, value: Any) -> str:
        try:
            return self._storable(value)
        except NotStorable as error:
            raise NotStorable(f"result of step {name!r}: {error}") from None

    def _keep_within(self, name: str, value: Any, began: datetime) -> Steps[Json]:
        text = self._stored(name, value)
        running = self._running
        # Last, as ever: taken first, the job's row would be locked for as long as the step runs.
        yield from running.prove(began)
        return (yield from self._book.keep(running.job_id, running.lease, name, text))

    # -- sleeps ------------------------------------------------------------------

    def _sleep(self, how_long: float | timedelta | datetime, name: str | None) -> None:
        span = self._checked_sleep(how_long)
        self._load()
        if asked := self._asked_sleep(name, span):
            self._wake_up(self._running.ask(asked))

    async def _asleep(self, how_long: float | timedelta | datetime, name: str | None) -> None:
        span = self._checked_sleep(how_long)
        await self._aload()
        self._check_left()
        if asked := self._asked_sleep(name, span):
            self._wake_up(await self._running.aask(asked))

    def _checked_sleep(self, how_long: Any) -> tuple[float | None, datetime | None]:
        self._check_left("sleep")
        if isinstance(how_long, datetime):
            return None, checked_time("sleep until", how_long)
        return _checked_seconds("sleep", how_long), None

    def _asked_sleep(
        self, name: str | None, span: tuple[float | None, datetime | None]
    ) -> Steps[float] | None:
        """What to write down; None when this sleep is over."""
        key = ("sleep", self._counted("sleep", name))
        kept = self._take(key)
        if kept is not None and kept.is_over:
            return None
        return self._book.sleep(self._running.job_id, self._running.lease, key[1], *span)

    def _wake_up(self, left: float) -> None:
        if left > 0:
            self._park(left)

    # -- waits -------------------------------------------------------------------

    def _wait_for(
        self, event: str, key: Any, timeout: float | timedelta | None, name: str | None
    ) -> Json:
        known = self._checked_wait(event, key, timeout)
        self._load()
        place = self._counted(f"{known[0]}:{known[1]}", name)
        kept = self._take(("wait", place))
        if kept is None or not kept.is_over:
            kept = self._left_open(place, self._running.ask(self._asked_wait(place, *known)))
        return _brought(kept, *known)

    async def _await_for(
        self,
        event: str,
        key: Any,
        timeout: float | timedelta | None,  # noqa: ASYNC109 - of days, and over many calls
        name: str | None,
    ) -> Json:
        known = self._checked_wait(event, key, timeout)
        await self._aload()
        self._check_left()
        place = self._counted(f"{known[0]}:{known[1]}", name)
        kept = self._take(("wait", place))
        if kept is None or not kept.is_over:
            asked = self._asked_wait(place, *known)
            kept = self._left_open(place, await self._running.aask(asked))
        return _brought(kept, *known)

    def _checked_wait(self, event: Any, key: Any, timeout: Any) -> tuple[str, str, float | None]:
        self._check_left("wait")
        seconds = None if timeout is None else _checked_seconds("wait_for timeout", timeout)
        return checked_event(event), checked_key(key), seconds

    def _asked_wait(
        self, name: str, event: str, key: str, timeout: float | None
    ) -> Steps[Standing]:
        running = self._running
        self._open[name] = None
        return self._book.wait(running.job_id, running.lease, name, event, key, timeout)

    def _left_open(self, name: str, standing: Standing) -> Kept:
        if not standing.is_over:
            self._park(standing.seconds_left)
        del self._open[name]
        return standing

    # -- what they share -----------------------------------------------------------

    def _load(self) -> None:
        if self._kept is None:
            self._kept = self._running.ask(self._book.find(self._running.job_id))

    async def _aload(self) -> None:
        if self._kept is None:
            self._kept = await self._running.aask(self._book.find(self._running.job_id))

    def _check_left(self, what: str | None = None) -> None:
        if self._parked is not None:
            # Somebody caught it: the handler is to be left all the same.
            raise self._parked
        if what is not None and not self._running.may_park:
            raise ConfigError(
                f"a batch handler cannot {what}: its jobs have one call between them; "
                "do that in a task of its own"
            )

    def _take(self, key: Key) -> Kept | None:
        if key in self._taken:
            kind, name = key
            raise ConfigError(
                f"{kind} {name!r} comes twice in one run of the handler: give each a name of its "
                f"own, in a loop such as f'{name}-{{n}}'"
            )
        self._taken.add(key)
        assert self._kept is not None  # noqa: S101 - asked for before; the type cannot say it
        return self._kept.get(key)

    def _counted(self, base: str, name: str | None) -> str:
        """The name given, or one by how often this came before in this run of the handler."""
        if name is not None:
            return _checked_name("step", name)
        count = self._counts[base] = self._counts.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def _park(self, seconds: float | None) -> NoReturn:
        left = LONGEST if seconds is None else min(seconds, LONGEST)
        self._parked = Parked(left, tuple(self._open))
        raise self._parked


def checked_key(key: Any) -> str:
    """The key of an event, text or a whole number; raises ConfigError."""
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if key is None:
        raise ConfigError("event key None is not valid: text or a whole number")
    return checked_text("event key", key, KEY_LIMIT) or ""


def _checked_name(kind: str, name: Any) -> str:
    return checked_text(f"{kind} name", "" if name is None else name, NAME_LIMIT) or ""


def _checked_seconds(what: str, span: Any) -> float:
    is_number = isinstance(span, int | float) and not isinstance(span, bool)
    if not is_number and not isinstance(span, timedelta):
        raise ConfigError(f"{what} {span!r} is not valid: seconds or a timedelta")
    seconds = seconds_of(span) if isinstance(span, timedelta) else span
    if not -math.inf < seconds <= LONGEST:
        raise ConfigError(f"{what} {span!r} is not valid: seconds, 100 years at most")
    return float(max(0, seconds))


def _brought(kept: Kept, event: str, key: str, timeout: float | None) -> Json:
    if not kept.has_come:
        raise EventTimeout(event, key, timeout)
    return kept.result


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value

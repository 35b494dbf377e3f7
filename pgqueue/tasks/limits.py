"""What a task's jobs are limited by, as its definition says it: plain values and their checks."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pgqueue.errors import ConfigError
from pgqueue.job import is_storable
from pgqueue.tasks.values import seconds_of

NAME_LIMIT = 200
"""Bytes of a name as it is declared; with its values put in it may have 500."""

MOST_RUNNING = 1_000_000
MOST_STARTS = 100_000
"""Each pass of admission reads the starts within `per`."""

LONGEST_PERIOD = 86_400.0
"""Seconds."""

MOST_LIMITS = 10
"""Of one task: each of its jobs is counted under all of them."""

ORDER = "ordered:"
"""What the names of orders begin with: they are limits of one, with a line in order."""

QUEUE = "queue:"
"""What the name of a queue's own limit begins with."""

OF_THE_JOB = frozenset({"tenant", "queue", "task"})
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Limit:
    """A named cap that holds across the whole fleet.

    Jobs whose limit has this name share `running` slots, or `starts` in any `per` seconds. The name
    may hold `{tenant}`, `{queue}`, `{task}` or `{a field of the payload}`; a job that has no such
    value is not under this limit. Raises ConfigError for what cannot be.
    """

    name: str
    running: int | None = None
    starts: int | None = None
    per: float | timedelta | None = None

    def __post_init__(self) -> None:
        check_name("limit", self.name)
        if self.name.startswith(ORDER):
            raise ConfigError(f"limit {self.name!r}: names that begin with {ORDER} are orders")
        check_caps(self.name, self.running, self.starts, self.per)

    @property
    def seconds(self) -> float | None:
        """The period of a rate."""
        return None if self.per is None else seconds_of(self.per)


@dataclass(frozen=True, slots=True)
class Order:
    """Jobs of one key run one after another, in the order of their times: `scheduled_at`, `id`.

    `on_failure` says what a job does that has failed for good to those behind it: with `pass` the
    next one runs, with `hold` they wait until it is retried or deleted. One that waits for its
    retry keeps its place either way.
    """

    key: str
    on_failure: str = "pass"

    def __post_init__(self) -> None:
        check_name("ordered_by", self.key)
        if self.on_failure not in {"hold", "pass"}:
            raise ConfigError(
                f"ordered_by {self.key!r}: on_failure {self.on_failure!r} is not valid: hold, pass"
            )

    @property
    def name(self) -> str:
        """The name of the limit that it is."""
        return ORDER + self.key


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """All that a task's jobs are limited by; its order comes first."""

    limits: tuple[Limit, ...] = ()
    order: Order | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """As they are declared, with {tenant} and the like in them."""
        first = () if self.order is None else (self.order.name,)
        return first + tuple(limit.name for limit in self.limits)

    @property
    def definitions(self) -> tuple[Limit | Order, ...]:
        """What is declared, the order first."""
        return (() if self.order is None else (self.order,)) + self.limits

    @property
    def fields(self) -> set[str]:
        """The fields of the payload that the names hold."""
        return {field for name in self.names for field in fields_of(name)} - OF_THE_JOB


def task_limits(task: str, limits: Any, ordered_by: Any) -> TaskLimits:
    """The checked limits of a task; raises ConfigError."""
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise ConfigError(f"task {task!r}: limits {limits!r} is not valid: a list of Limit(…)")
    for limit in limits:
        if not isinstance(limit, Limit):
            raise ConfigError(f"task {task!r}: {limit!r} is no limit: use Limit(name, running=…)")
    names = [limit.name for limit in limits]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"task {task!r}: limit {min(twice)!r} is given twice")
    if len(names) > MOST_LIMITS:
        raise ConfigError(f"task {task!r}: {len(names)} limits, and {MOST_LIMITS} are the most")
    return TaskLimits(tuple(limits), _order(task, ordered_by))


def _order(task: str, ordered_by: Any) -> Order | None:
    if ordered_by is None or isinstance(ordered_by, Order):
        return ordered_by
    if not isinstance(ordered_by, str):
        raise ConfigError(
            f"task {task!r}: ordered_by {ordered_by!r} is not valid: "
            'a key such as "customer:{customer_id}", or Order(key, on_failure=…)'
        )
    return Order(ordered_by)


def check_fields(task: str, limits: TaskLimits, known: Collection[str]) -> None:
    """Raise ConfigError for a name with a field that the task's payload cannot have."""
    for name in sorted(limits.fields - set(known)):
        listed = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"task {task!r}: a limit names {{{name}}}, which is no parameter of it ({listed}), "
            "nor tenant, queue or task"
        )


def check_caps(name: str, running: Any, starts: Any, per: Any) -> None:
    """Raise ConfigError unless these are the figures of a limit."""
    if running is None and starts is None:
        raise ConfigError(f"limit {name!r} limits nothing: give running, or starts and per")
    if (starts is None) != (per is None):
        raise ConfigError(f"limit {name!r}: starts and per belong together, as in starts=10, per=1")
    if running is not None and not _is_count(running, 0, MOST_RUNNING):
        raise ConfigError(
            f"limit {name!r}: running {running!r} is not valid: a whole number from 0 to "
            f"{MOST_RUNNING:,}"
        )
    if starts is not None and not _is_count(starts, 1, MOST_STARTS):
        raise ConfigError(
            f"limit {name!r}: starts {starts!r} is not valid: a whole number from 1 to "
            f"{MOST_STARTS:,}"
        )
    if per is not None and not _is_period(per):
        raise ConfigError(
            f"limit {name!r}: per {per!r} is not valid: more than 0 seconds, one day at most"
        )


def fields_of(name: str) -> list[str]:
    """What stands in braces in a name."""
    return _FIELD.findall(name)


def pattern_of(name: str) -> str | None:
    """The name as a pattern for SQL's `like`; None when it holds nothing to be put in."""
    parts = _FIELD.split(name)
    if len(parts) == 1:
        return None
    return "%".join(re.sub(r"([\\%_])", r"\\\1", fixed) for fixed in parts[::2])


def check_name(what: str, name: Any) -> str:
    """The name as it is; raises ConfigError unless a limit can be called so."""
    if not is_storable(name) or not 1 <= len(name.encode()) <= NAME_LIMIT:
        raise ConfigError(
            f"{what} {str(name)[:100]!r} is not valid: text of 1 to {NAME_LIMIT} bytes, without "
            "NUL or lone surrogates"
        )
    if not re.match(r"[A-Za-z0-9]", name):
        raise ConfigError(f"{what} {name!r} is not valid: it begins with a letter or a digit")
    if "{" in _FIELD.sub("", name) or "}" in _FIELD.sub("", name):
        raise ConfigError(
            f"{what} {name!r} is not valid: braces hold the name of a field, as in {{tenant}}"
        )
    return name


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_period(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        return False
    return 0 < seconds_of(value) <= LONGEST_PERIOD

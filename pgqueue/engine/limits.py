"""Limits: let blocked jobs in, claim those that were let in, declare, set, list and check."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgqueue.db.run import Batch, Rows, Statement, Steps, array_of
from pgqueue.engine.claim import (
    STEADY_PLAN,
    STEADY_PLAN_NOT_DURABLE,
    Claimed,
    claimed_of_rows,
)
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError
from pgqueue.job import Ended, Outcome, State

Sql = Mapping[str, str]

ORDER = "ordered:"
QUEUE = "queue:"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker's passes of admission are: no admission lives below `lowest`, and the look at
    the lines goes on after the name `reached`."""

    lowest: int = 0
    reached: str = ""


class Pass(NamedTuple):
    """What a pass of admission did. Where another one held the lock it has not `ran`."""

    ran: bool
    admitted: int
    queues: list[str]
    lowest: int
    reached: str
    wait: float | None
    """Seconds until there may be something to do; None when nothing waits."""
    moving: bool
    """Whether what waits may come in without anybody's doing."""
    unclaimed: bool
    """Whether somebody was let in before and is not claimed yet: who let him in may have died."""
    unseen: list[str]
    """Lines that the pass should have looked at and had no time for."""

    @property
    def place(self) -> Place:
        """Where the next pass begins."""
        return Place(self.lowest, self.reached)


def admit(sql: Sql, named: Collection[str], place: Place, alive: float) -> Steps[Pass]:
    """One pass, in a transaction of its own; for a connection in autocommit.

    `named` are the limits of jobs that have ended. A worker counts as live that beat within `alive`
    seconds. Not durable: a lost admission is only a job that waits again.
    """
    params = {
        "named": list(named),
        "lowest": place.lowest,
        "after": place.reached,
        "alive": alive,
    }
    _, rows = yield Batch((STEADY_PLAN_NOT_DURABLE, Statement(sql["admit"], params)))
    return Pass(*rows[0])


def find_free_lines(sql: Sql, after: str, lowest: int) -> Steps[tuple[list[str], str]]:
    """Lines with room of which nobody may have told, and where the next look begins.

    Looks at 2000 lines after the name `after` and returns 64 at most; a pass judges them. No
    admission lives below `lowest`.
    """
    params = {"after": after, "lowest": lowest}
    _, rows = yield Batch((STEADY_PLAN, Statement(sql["find_free_lines"], params)))
    ((names, reached),) = rows
    return names, reached or ""


def claim_limited(
    sql: Sql,
    queues: Sequence[str],
    tasks: Sequence[str],
    *,
    worker_id: int,
    lease: int,
    limit: int,
    lowest: int,
    suspects: bool,
) -> Statement:
    """The statement that claims up to `limit` admitted jobs of these tasks; no queues are all."""
    params = {
        "queues": array_of(queues),
        "tasks": array_of(tasks),
        "worker_id": worker_id,
        "lease": lease,
        "n": limit,
        "lowest": lowest,
        "suspects": suspects,
    }
    return Statement(sql["claim_limited"], params, raw=True)


def limited_of_rows(lease: int, rows: Rows) -> tuple[Claimed, dict[int, tuple[str, ...]]]:
    """What `claim_limited` answered, and the names of the jobs' limits by id."""
    claimed = claimed_of_rows(lease, [row[:-1] for row in rows])
    return claimed, {row[1]: tuple(row[-1]) for row in rows if row[1] is not None}


def hold_statements(
    sql: Sql, outcomes: Iterable[Outcome], limits: Mapping[int, Sequence[str]]
) -> list[Statement]:
    """What follows the ends of jobs in their transaction: a failed one may hold its order."""
    ids = [
        outcome.job_id
        for outcome in outcomes
        if isinstance(outcome, Ended)
        and outcome.state is State.FAILED
        and any(name.startswith(ORDER) for name in limits.get(outcome.job_id, ()))
    ]
    return [Statement(sql["hold_orders"], {"ids": ids})] if ids else []


class Rule(NamedTuple):
    """A limit as code declares it; `pattern` is what its name looks like with values put in."""

    name: str
    pattern: str | None
    running: int | None = None
    starts: int | None = None
    per: float | None = None
    on_failure: str | None = None


def declare(sql: Sql, rules: Sequence[Rule], names: Mapping[str, Sequence[str]]) -> Steps[None]:
    """Store what code declares: rules, and for each task the names of its limits.

    For a connection in autocommit. The same again changes nothing.
    """
    limited = {task: listed for task, listed in names.items() if listed}
    if rules:
        columns = list(zip(*rules, strict=True))
        keys = ("names", "patterns", "runnings", "startses", "pers", "on_failures")
        yield Statement(sql["put_limits"], dict(zip(keys, map(list, columns), strict=True)))
    listed = [array_of(of_task) for of_task in limited.values()]
    yield Statement(sql["put_task_limits"], {"tasks": list(limited), "names": listed})
    unlimited = [task for task in names if task not in limited]
    yield Statement(sql["drop_task_limits"], {"tasks": unlimited})


@dataclass(frozen=True, slots=True)
class Caps:
    """What an operator sets for a limit; `seconds` None: until it is taken back."""

    running: int | None = None
    starts: int | None = None
    per: float | None = None
    seconds: float | None = None


def set_limit(sql: Sql, name: str, caps: Caps | None, operator: Operator) -> Steps[bool]:
    """Let other figures hold than the code declares, or with None those of the code again.

    False when there was nothing to take back, or when no code declares what is set. Raises
    ConfigError for a pattern that no code declares, for starts of no period, and for an order.
    """
    if name.startswith(ORDER):
        raise ConfigError(f"{name!r} is an order: one job at a time, nothing else can be set")
    params = {
        "name": name,
        "queue": name.removeprefix(QUEUE) if name.startswith(QUEUE) and "{" not in name else None,
        **operator.params,
    }
    if caps is None:
        return bool((yield Statement(sql["reset_limit"], params)))
    ((is_declared, _, _, per, _),) = yield Statement(sql["find_limit"], {"name": name})
    if "{" in name and not is_declared:
        raise ConfigError(
            f"limit {name!r} is declared by no task: name one limit, such as tenant:acme"
        )
    if caps.starts is not None and caps.per is None and per is None:
        raise ConfigError(
            f"limit {name!r} has no rate yet: starts and per belong together, as in "
            "starts=10, per=1"
        )
    figures = {
        "running": caps.running,
        "starts": caps.starts,
        "per": per if caps.starts is not None and caps.per is None else caps.per,
        "seconds": caps.seconds,
    }
    yield Statement(sql["set_limit"], {**params, **figures})
    return bool(is_declared or params["queue"])


LISTED = (
    "name", "running", "starts", "per", "on_failure", "used", "free", "started", "waiting", "until",
    "held_by",
)  # fmt: skip
"""The columns of `list_limits`, in its order."""


def list_limits(sql: Sql, name: str | None, n: int) -> Steps[list[dict[str, Any]]]:
    """Limits that are set, held or waited for, the longest lines first."""
    rows = yield Statement(sql["list_limits"], {"name": name, "n": n})
    return [dict(zip(LISTED, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that does not hold: `found` where `allowed` are, and the jobs that show it."""

    name: str
    allowed: int
    found: int
    per: float | None
    job_ids: tuple[int, ...]


def check_limits(sql: Sql) -> Steps[list[Exceeded]]:
    """Which limits are exceeded, counted from the rows; none, if all is well."""
    held = yield Statement(sql["find_exceeded"])
    exceeded = [
        Exceeded(name, allowed, found, None, tuple(ids)) for name, allowed, found, ids in held
    ]
    names = yield from list_started(sql, "")
    while names:
        rates = yield Statement(sql["find_exceeded_rates"], {"names": names})
        exceeded += [Exceeded(name, allowed, found, per, ()) for name, allowed, per, found in rates]
        names = yield from list_started(sql, names[-1])
    return exceeded


def list_started(sql: Sql, after: str) -> Steps[list[str]]:
    """The next limits after this name whose starts are kept; none at the end."""
    rows = yield Statement(sql["list_started_limits"], {"after": after})
    return [name for (name,) in rows]


def backlog(sql: Sql, queue: str, most: int) -> Steps[int]:
    """How many jobs of a queue wait: queued, scheduled, blocked; counts `most` of each at most."""
    ((count,),) = yield Statement(sql["count_backlog"], {"queue": queue, "most": most})
    return int(count)


def find_fill(sql: Sql, queue: str) -> Steps[tuple[int, int] | None]:
    """How many jobs may wait in a queue, and how many do; None where there is no bound."""
    rows = yield Statement(sql["find_fill"], {"queue": queue})
    return (rows[0][0], rows[0][1]) if rows else None


def set_max_queued(sql: Sql, queue: str, max_queued: int | None, operator: Operator) -> Steps[None]:
    """Let at most so many jobs of a queue wait; None takes the bound away."""
    params = {"queue": queue, "max_queued": max_queued, **operator.params}
    yield Statement(sql["put_max_queued"], params)

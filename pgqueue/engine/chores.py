"""Maintenance duties without a leader: taken by a short update, worked in small transactions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.errors import ChoreLost

T = TypeVar("T")
Sql = Mapping[str, str]

RENEWALS = 4
"""How often in the time of its hold a chore is held anew."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The chore that was taken, if any, and the seconds until another one may be."""

    name: str | None
    wait: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes chores, and for how many seconds each statement of theirs may take."""

    worker_id: int
    hold: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A chore that may be taken. One that is `looked_for` counts as done where the look that would
    take it shows that there is nothing to do; it then comes again as by `finish_chore`.
    """

    name: str
    at_most: float | None = None
    looked_for: bool = False


def take_chore(
    sql: Sql, offers: Collection[Offer], holder: Holder, heartbeat_timeout: float = 0.0
) -> Steps[Taken]:
    """Take the chore of these that has been due longest.

    There is something to rescue where a worker has been silent for `heartbeat_timeout` seconds.
    """
    params = {
        "names": [offer.name for offer in offers],
        "at_most": [offer.at_most for offer in offers],
        "looked_for": [offer.looked_for for offer in offers],
        "timeout": heartbeat_timeout,
        "hold": holder.hold,
        "worker_id": holder.worker_id,
    }
    ((name, wait),) = yield Statement(sql["take_chore"], params)
    return Taken(name, math.inf if wait is None else wait)


def finish_chore(  # noqa: PLR0917 - what became of it, in the order of the columns
    sql: Sql,
    name: str,
    holder: Holder,
    seconds: float,
    error: str | None = None,
    at_most: float | None = None,
) -> Steps[bool]:
    """Give a chore back; it comes again after its interval, or `at_most` seconds if sooner.

    False when somebody else has taken it meanwhile.
    """
    params = {
        "name": name,
        "worker_id": holder.worker_id,
        "seconds": seconds,
        "error": error,
        "at_most": at_most,
    }
    rows = yield Statement(sql["finish_chore"], params)
    return bool(rows)


def hasten_chore(sql: Sql, name: str) -> Steps[None]:
    """Let a chore come now."""
    yield Statement(sql["hasten_chore"], {"name": name})


def held(
    sql: Sql, name: str, holder: Holder, steps: Steps[T], clock: Callable[[], float]
) -> Steps[T]:
    """The same steps, holding the chore anew between them; `clock` counts seconds.

    Raises ChoreLost when somebody else has taken it meanwhile.
    """
    params = {"name": name, "hold": holder.hold, "worker_id": holder.worker_id}
    keep = Statement(sql["keep_chore"], params)
    renewed = clock()
    try:
        asked = next(steps)
        while True:
            if clock() - renewed > holder.hold / RENEWALS:
                renewed = clock()
                if not (yield keep):
                    raise ChoreLost(name)
            try:
                reply: Rows | list[Rows] = yield asked
            except Exception as error:  # noqa: BLE001 - whatever it is, it is for the steps
                asked = steps.throw(error)
            else:
                asked = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()

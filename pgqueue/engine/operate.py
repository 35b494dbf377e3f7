"""What every operator's action shares: who acts and from where, and batches of ids."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from pgqueue.db.run import Batch, Rows, Statement, Steps
from pgqueue.errors import ConfigError, JobBusy
from pgqueue.job import is_storable

T = TypeVar("T")

BATCH = 500
"""Rows that one transaction locks at most."""

WAIT = 5.0
"""Seconds that an operator's command waits for rows that somebody holds; as `unique_wait`."""

REASON_LIMIT = 1000
"""Characters of the reason for a pause."""

SOURCES = ("cli", "api", "ui", "code")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and from where: `cli`, `api`, `ui` or `code`; stands in audit_log."""

    who: str
    source: str = "code"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"source {self.source!r} is not valid: {', '.join(SOURCES)}")
        if not is_storable(self.who) or not self.who.strip():
            raise ConfigError(f"operator {self.who!r} is not valid: say who acts")

    @property
    def params(self) -> dict[str, str]:
        return {"who": self.who, "source": self.source}


def this_user(source: str = "code") -> Operator:
    """The operating system's user of this process."""
    try:
        who = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that nobody has named
        who = f"uid {os.getuid()}"
    return Operator(who, source)


def acting(by: Operator | None) -> Operator:
    """Who acts: without `by` this process's user; raises ConfigError for anything else."""
    if by is None:
        return this_user()
    if not isinstance(by, Operator):
        raise ConfigError(f"by={by!r} is not valid: use Operator({str(by)!r})")
    return by


def checked_reason(reason: str | None) -> str | None:
    """The reason for a pause as it is; raises ConfigError for what cannot be stored."""
    if reason is not None and (not is_storable(reason) or len(reason) > REASON_LIMIT):
        raise ConfigError(
            f"the reason is not valid: text of at most {REASON_LIMIT} characters, "
            "without NUL or lone surrogates"
        )
    return reason


def patiently(sql: Mapping[str, str], statement: Statement) -> Steps[Rows]:
    """The rows of a statement on `ids` that waits for locked rows, though not for ever.

    For an autocommit connection. Raises JobBusy after `WAIT` seconds.
    """
    params = {"wait": f"{WAIT:g}s"}
    try:
        _, rows = yield Batch((Statement(sql["wait_for_rows"], params), statement))
    except psycopg.errors.LockNotAvailable:
        asked = {"ids": (statement.params or {})["ids"]}
        held = yield Statement(sql["find_held"], asked)
        raise JobBusy(tuple(job_id for (job_id,) in held), WAIT) from None
    return rows  # type: ignore[no-any-return]  # rows of any type


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """`items` in pieces of at most 500."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]

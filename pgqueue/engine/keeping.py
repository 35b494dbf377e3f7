"""How long finished jobs and windows are kept: the table `retention`, read and set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Literal

from pgqueue.db.run import Rows, Statement, Steps
from pgqueue.engine.operate import Operator
from pgqueue.errors import ConfigError

Sql = Mapping[str, str]

WINDOWS = "windows"
GROUPS = ("completed", "failed", WINDOWS)
SHORTEST = timedelta(hours=1)
LONGEST = timedelta(days=36_600)
LARGEST = 2**63 - 1


class Unchanged(Enum):
    """What is not given stays as it is: None already means for ever, or any number."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
As = Literal[Unchanged.UNCHANGED]


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a group of finished jobs is kept; without `keep` for ever. `failed` are cancelled
    ones, too. Whole oldest days go while the younger ones hold `keep_count` jobs. `windows` are
    those of schedules, by when they ended."""

    state_group: str
    keep: timedelta | None
    keep_count: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be kept from now on; raises ConfigError for what cannot be."""

    state_group: str
    keep: timedelta | As | None = UNCHANGED
    keep_count: int | As | None = UNCHANGED

    def __post_init__(self) -> None:
        if self.state_group not in GROUPS:
            raise ConfigError(
                f"state group {self.state_group!r} is not valid: {', '.join(GROUPS)} "
                "(failed is cancelled, too)"
            )
        if self.keep is UNCHANGED and self.keep_count is UNCHANGED:
            raise ConfigError("say what to keep: keep, keep_count, or both")
        if isinstance(self.keep, Unchanged | None) or _is_time(self.keep):
            self._check_count()
            return
        shown = self.keep if isinstance(self.keep, timedelta) else repr(self.keep)
        raise ConfigError(f"keep {shown} is not valid: 1 hour or more, 100 years at most")

    def _check_count(self) -> None:
        count = self.keep_count
        if self.state_group == WINDOWS and not isinstance(count, Unchanged | None):
            raise ConfigError("windows are kept by time alone: give keep")
        if isinstance(count, Unchanged | None) or (type(count) is int and 0 <= count <= LARGEST):
            return
        raise ConfigError(f"keep_count {count!r} is not valid: a whole number from 0")


def _is_time(keep: Any) -> bool:
    return isinstance(keep, timedelta) and SHORTEST <= keep <= LONGEST


def find_policies(sql: Sql) -> Steps[list[Policy]]:
    """How long each group is kept."""
    rows: Rows = yield Statement(sql["find_policies"])
    return [Policy(*row) for row in rows]


def set_retention(sql: Sql, change: Change, operator: Operator) -> Steps[Policy]:
    """Change what is kept of a group; returns what holds now.

    Raises ConfigError for a number of jobs of a group that is kept for ever.
    """
    policies = yield from find_policies(sql)
    (before,) = (policy for policy in policies if policy.state_group == change.state_group)
    after = _changed(before, change)
    if after.keep is None and after.keep_count is not None:
        raise ConfigError(
            f"{after.state_group} jobs are kept for ever: give keep, too, or no keep_count"
        )
    name = "delete_policy" if after.keep is None else "put_policy"
    params = {
        "state_group": after.state_group,
        "keep": after.keep,
        "keep_count": after.keep_count,
        **operator.params,
    }
    yield Statement(sql[name], params)
    return after


def _changed(before: Policy, change: Change) -> Policy:
    keep = before.keep if change.keep is UNCHANGED else change.keep
    count = before.keep_count if change.keep_count is UNCHANGED else change.keep_count
    if change.keep is None and change.keep_count is UNCHANGED:
        count = None
    return Policy(before.state_group, keep, count)

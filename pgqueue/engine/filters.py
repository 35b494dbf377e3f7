"""Which jobs are meant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pgqueue.errors import ConfigError
from pgqueue.job import State, is_storable

STATES = tuple(str(state) for state in State)
STATUSES = (*STATES, "scheduled", "retrying")
LARGEST_ID = 2**63 - 1
_TEXTS = ("task", "queue", "tenant", "tag", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Jobs that fit everything that is given; raises ConfigError for what no job can have.

    `status` is the state that people see: `scheduled` and `retrying` are queued jobs whose time
    has not come. `reason` is that of the last error. `since` and `until` (not included) are
    about when a job ended, and for a live one about when it was created.
    """

    states: tuple[str, ...] = ()
    status: str | None = None
    task: str | None = None
    queue: str | None = None
    tenant: str | None = None
    tag: str | None = None
    reason: str | None = None
    workflow_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        _check_list(self.states)
        for state in self.states:
            if state not in STATES:
                raise ConfigError(f"state {state!r} is not valid: {', '.join(STATES)}")
        if self.status is not None and self.status not in STATUSES:
            raise ConfigError(f"status {self.status!r} is not valid: {', '.join(STATUSES)}")
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None and not is_storable(text):
                raise ConfigError(
                    f"{name} {text!r} is not valid: text without NUL or lone surrogates"
                )
        if self.workflow_id is not None and not _is_id(self.workflow_id):
            raise ConfigError(f"workflow_id {self.workflow_id!r} is not valid: a whole number")
        for name in ("since", "until"):
            at = getattr(self, name)
            if at is not None and not isinstance(at, datetime):
                raise ConfigError(f"{name} {at!r} is not valid: use an aware datetime")
            if at is not None and at.utcoffset() is None:
                raise ConfigError(
                    f"{name} {at.isoformat()} has no time zone: use an aware datetime"
                )

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the statements that filter."""
        return {**asdict(self), "states": [str(state) for state in self.states] or None}

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for, as JSON."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in self.params.items()
            if value is not None
        }


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_ID


def checked_filter(wanted: Any) -> JobFilter:
    """The filter as it is; raises ConfigError for what is none."""
    if not isinstance(wanted, JobFilter):
        raise ConfigError(f"{wanted!r} is no filter: use JobFilter(task=…, states=…)")
    return wanted


def _check_list(states: Any) -> None:
    if isinstance(states, str) or not isinstance(states, Collection):
        raise ConfigError(f"states {states!r} are not valid: several, such as ('failed',)")

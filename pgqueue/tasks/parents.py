"""What the parents of a job in a workflow gave: a handler's parameter annotated `Parents`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from pgqueue.db.run import Statement, Steps
from pgqueue.errors import PayloadInvalid
from pgqueue.job import State

T = TypeVar("T")
U = TypeVar("U")

NAMED = 5
"""Parents that a message names."""

NOTHING = frozenset({None, "null"})
HINT = " (it returned None: annotate Parents[… | None])"


@dataclass(frozen=True, slots=True)
class _Given:
    """A parent as the database tells of it."""

    name: str
    group: str | None
    outcome: str
    result: str | None


class Parents(Mapping[str, T], Generic[T]):
    """The results of a job's completed parents by the names of their nodes, in order.

    `Parents[int]` validates each against the type, as arguments are, before the handler starts; one
    that returned nothing gives None. A parent that failed, was cancelled or deleted (the job's
    policy ignored that) has no result of any type: `outcomes` has it, `get` gives None for it.
    """

    def __init__(self, given: Sequence[_Given] = (), kind: Any = None) -> None:
        self._given = {one.name: one for one in given}
        read = json.loads if kind is None else _reader(kind)
        self._results: dict[str, T] = {
            one.name: _read(one, read) for one in given if one.outcome == State.COMPLETED
        }
        self.outcomes: Mapping[str, str] = {one.name: one.outcome for one in given}
        """How each parent ended: `completed`, `failed`, `cancelled` or `deleted`."""

    def __getitem__(self, name: str) -> T:
        if name not in self._results and name in self.outcomes:
            raise KeyError(f"parent {name!r} has no result: it is {self.outcomes[name]}")
        if name not in self._results:
            known = ", ".join(map(repr, list(self.outcomes)[:NAMED])) or "none"
            raise KeyError(f"no parent is named {name!r}; the first are {known}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"Parents({self._results!r})"

    def group(self, name: str) -> list[T]:
        """The results of the completed members of a group, in order."""
        return [value for key, value in self._results.items() if self._given[key].group == name]

    def read(self, name: str, kind: type[U]) -> U:
        """One result as this type; raises KeyError, and pydantic's ValidationError."""
        _ = self[name]
        value: U = TypeAdapter(kind).validate_json(self._given[name].result or "null")
        return value


def kind_of(annotation: Any) -> Any:
    """The type of the results that the annotation asks for; None for plain `Parents`."""
    kinds = get_args(annotation)
    return None if not kinds or isinstance(kinds[0], TypeVar) or kinds[0] is Any else kinds[0]


def find_parents(sql: Mapping[str, str], task: str, job_id: int, kind: Any) -> Steps[Parents[Any]]:
    """What the parents of a job gave; raises PayloadInvalid where that is not of the type."""
    rows = yield Statement(sql["find_parents"], {"id": job_id})
    try:
        return Parents([_Given(*row) for row in rows], kind)
    except _Unfit as unfit:
        raise PayloadInvalid(task, unfit.problems) from None


class _Unfit(Exception):
    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems


def _reader(kind: Any) -> Any:
    return TypeAdapter(kind).validate_json


def _read(one: _Given, read: Any) -> Any:
    try:
        return read(one.result or "null")
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        hint = "" if one.result not in NOTHING else HINT
        place = f"parents[{one.name!r}]"
        raise _Unfit([(place, problem["msg"] + hint) for problem in problems]) from None

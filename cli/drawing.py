"""A workflow's graph as text: who comes after whom, where each stands; many alike as one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .operating import safe

FOLDED_FROM = 6
"""So many nodes of one group, or of one task with the same parents, become one line."""

NAMED = 5
"""Further parents that a line names."""

WIDEST = 60
"""Columns of branches. What lies deeper is not moved to the right, and names all its parents."""

_ORDER = ("running", "queued", "blocked", "waiting", "completed", "failed", "cancelled", "deleted")


@dataclass(slots=True)
class _Unit:
    """A line to be: one node, or many that are folded."""

    place: int
    label: str
    nodes: list[Mapping[str, Any]] = field(default_factory=list)
    parents: set[int] = field(default_factory=set)


def lines(graph: Sequence[Mapping[str, Any]], *, folded: bool = True) -> Iterator[str]:
    """The drawing, line by line. A node stands once, below the last of those it comes after."""
    units = _units(graph, FOLDED_FROM if folded else len(graph) + 1)
    below: dict[int, list[_Unit]] = {}
    for unit in units:
        # A parent that was added later stands further down, not above.
        above = [place for place in unit.parents if place < unit.place]
        below.setdefault(max(above, default=-1), []).append(unit)
    yield from _branches(units, below)


def _units(graph: Sequence[Mapping[str, Any]], fold: int) -> list[_Unit]:
    sizes = Counter(_likeness(node) for node in graph)
    units: list[_Unit] = []
    by_likeness: dict[Any, _Unit] = {}
    of_name: dict[str, _Unit] = {}
    for node in graph:
        likeness = _likeness(node)
        unit = by_likeness.get(likeness)
        if unit is None or sizes[likeness] < fold:
            unit = _Unit(len(units), str(node["name"]))
            units.append(unit)
            by_likeness[likeness] = unit
        unit.nodes.append(node)
        of_name[node["name"]] = unit
    for unit in units:
        names = {name for node in unit.nodes for name in node["after"]}
        unit.parents = {of_name[name].place for name in names} - {unit.place}
        if len(unit.nodes) > 1:
            first = unit.nodes[0]
            unit.label = f"{first['group_name'] or first['task']} x {len(unit.nodes):,}"
    return units


def _likeness(node: Mapping[str, Any]) -> Any:
    if node["group_name"] is not None:
        return ("group", node["group_name"])
    return ("task", node["task"], tuple(node["after"]))


def _branches(units: Sequence[_Unit], below: Mapping[int, list[_Unit]]) -> Iterator[str]:
    # Not recursive: a branch may lie below a thousand others.
    open_ones = [(unit, "", "") for unit in reversed(below.get(-1, []))]
    while open_ones:
        unit, before, inner = open_ones.pop()
        is_deep = len(inner) >= WIDEST
        yield before + _line(unit, units, is_deep=is_deep)
        # One after another, as long as there is only one: the drawing grows down, not to the right.
        followers = below.get(unit.place, [])
        while len(followers) == 1:
            yield f"{inner}↓ {_line(followers[0], units, is_deep=is_deep)}"
            followers = below.get(followers[0].place, [])
        for follower in reversed(followers):
            is_last = follower is followers[-1]
            further = "" if is_deep else "  " if is_last else "│ "
            open_ones.append((follower, inner + ("└ " if is_last else "├ "), inner + further))


def _line(unit: _Unit, units: Sequence[_Unit], *, is_deep: bool) -> str:
    counts = Counter(node["state"] for node in unit.nodes)
    if len(unit.nodes) == 1:
        node = unit.nodes[0]
        said = f"{unit.label}: {node['state']} (job {node['job_id']}, {node['task']})"
    else:
        told = ", ".join(f"{counts[state]:,} {state}" for state in _ORDER if counts[state])
        said = f"{unit.label}: {told}"
    shown_below = max((place for place in unit.parents if place < unit.place), default=-1)
    others = sorted(unit.parents if is_deep else unit.parents - {shown_below})
    if others:
        named = ", ".join(units[place].label for place in others[:NAMED])
        more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
        said += f", {'' if is_deep else 'also '}after {named}{more}"
    return safe(said)

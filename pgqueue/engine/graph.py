"""The shape of a workflow as plain values: nodes, who comes after whom, nothing in a circle.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgqueue.errors import WorkflowInvalid
from pgqueue.job import NewJob

POLICIES = ("cancel", "ignore", "fail")

MOST_NODES = 100_000
MOST_EDGES = 1_000_000
"""Of one call. Two groups of 1,000, all of one after all of the other, are that many edges."""

NAMED = 10
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Node:
    """A job of a workflow and what it comes after; what a builder's `add` returns."""

    name: str
    job: NewJob
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Nodes of a workflow that is under way, which get this one as a further parent."""
    group: str | None = None
    parent_failed: str = "cancel"
    parent_cancelled: str = "cancel"


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes with one name: what a builder's `group` and `chain` return.

    Whatever comes after a group comes after its `ends`: all members, or the last of a chain.
    """

    name: str
    members: tuple[Node, ...]
    ends: tuple[Node, ...]
    callback: Node | None = None


def in_order(nodes: Mapping[str, Node], known: Collection[str] = ()) -> list[Node]:
    """The nodes, each after all it comes after; `known` names stand in the database already.

    Raises WorkflowInvalid for names that nobody has, circles, and more edges than MOST_EDGES.
    """
    edges = sum(len(node.after) for node in nodes.values())
    if edges > MOST_EDGES:
        raise WorkflowInvalid(
            f"the workflow has {edges:,} edges, and {MOST_EDGES:,} is the most: let a group come "
            "after the callback of the one before, not after all of its members"
        )
    _check_names(nodes, known)
    children: dict[str, list[str]] = {name: [] for name in nodes}
    open_parents = {}
    for node in nodes.values():
        parents = [name for name in node.after if name in nodes]
        open_parents[node.name] = len(parents)
        for parent in parents:
            children[parent].append(node.name)
    ready = deque(name for name, count in open_parents.items() if not count)
    order: list[Node] = []
    while ready:
        name = ready.popleft()
        order.append(nodes[name])
        for child in children[name]:
            open_parents[child] -= 1
            if not open_parents[child]:
                ready.append(child)
    if len(order) < len(nodes):
        raise WorkflowInvalid(f"the workflow goes in a circle: {_circle(nodes, order)}")
    return order


def _check_names(nodes: Mapping[str, Node], known: Collection[str]) -> None:
    for node in nodes.values():
        for name in node.after:
            if name not in nodes and name not in known:
                raise WorkflowInvalid(
                    f"node {node.name!r} comes after {name!r}, which does not exist: "
                    f"the nodes are {listed(nodes)}"
                )
        for name in node.before:
            if name in nodes:
                raise WorkflowInvalid(
                    f"node {node.name!r} comes before {name!r}, which is new, too: "
                    f"say that {name!r} comes after {node.name!r}"
                )
            if name not in known:
                raise WorkflowInvalid(
                    f"node {node.name!r} comes before {name!r}, which does not exist"
                )


def _circle(nodes: Mapping[str, Node], order: Iterable[Node]) -> str:
    """One circle among the nodes that could not be put in order, as `a -> b -> a`."""
    left = set(nodes) - {node.name for node in order}
    # Each node that is left has a parent that is left: walking up must come round.
    name = next(name for name in nodes if name in left)
    way: list[str] = []
    while name not in way:
        way.append(name)
        name = next(parent for parent in nodes[name].after if parent in left)
    circle = [*way[way.index(name) :], name]
    return " -> ".join(reversed(circle))


def listed(names: Collection[str]) -> str:
    """The first names, for a message."""
    first = [repr(name) for _, name in zip(range(NAMED), names, strict=False)]
    return ", ".join(first) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def edges_of(order: Sequence[Node], ids: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """The children and the parents of all edges, by job id, an edge at each place."""
    children: list[int] = []
    parents: list[int] = []
    for node in order:
        children += [ids[node.name]] * len(node.after)
        parents += [ids[name] for name in node.after]
        children += [ids[name] for name in node.before]
        parents += [ids[node.name]] * len(node.before)
    return children, parents

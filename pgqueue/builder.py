"""Build a workflow: jobs with names, and who comes after whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypedDict, Unpack

from pgqueue.engine.graph import MOST_NODES, POLICIES, Group, Node, listed
from pgqueue.engine.workflow_entry import WorkflowRun
from pgqueue.errors import ConfigError, WorkflowInvalid
from pgqueue.job import Job, NewJob
from pgqueue.tasks.values import checked_text

NAME_LIMIT = 200
"""Bytes of a workflow's name, and of a node's."""

After = str | Node | Group | Iterable["str | Node | Group"]
"""Whom a node comes after: names of nodes or groups, or what `add`, `group`, `chain` returned."""


Policy = Literal["cancel", "ignore", "fail"]


class Policies(TypedDict, total=False):
    """What becomes of a node when one of its parents fails, or is cancelled or deleted.

    `cancel` (without being said): it is cancelled; `fail`: it fails; both without running, at once.
    `ignore`: it runs when all its parents have ended, in whatever way.
    """

    parent_failed: Policy
    parent_cancelled: Policy


class WorkflowSender(Protocol):
    """Who brings workflows into the database; the app is one."""

    def send_workflow(self, workflow: Workflow, connection: Any) -> WorkflowRun: ...
    async def asend_workflow(self, workflow: Workflow, connection: Any) -> WorkflowRun: ...


class Workflow:
    """A workflow to be: jobs with names, and who comes after whom.

    Made by `pgq.workflow(name)`. Nothing is in the database before `enqueue`, which inserts all of
    it in one transaction. With `id` set, its nodes are added to that workflow (`pgq.workflow_of`).
    """

    def __init__(self, name: str, sender: WorkflowSender, workflow_id: int | None = None) -> None:
        self.name = checked_name("workflow", name)
        self.id = workflow_id
        self.nodes: dict[str, Node] = {}
        self.groups: dict[str, Group] = {}
        self._sender = sender

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {len(self.nodes)} nodes>"

    def add(
        self,
        name: str,
        job: NewJob,
        *,
        after: After = (),
        before: After = (),
        **policies: Unpack[Policies],
    ) -> Node:
        """Add a job, `task.payload(…)`, under a name that is new here.

        It runs when all it comes `after` have completed, or as its policies say. `before` names
        nodes of a workflow under way that still wait: they get this one as a further parent.
        Raises WorkflowInvalid for a name that is taken and what cannot be a job or a policy.
        """
        return self._add(name, job, after=after, before=before, group=None, policies=policies)

    def chain(
        self, name: str, jobs: Iterable[NewJob], *, after: After = (), **policies: Unpack[Policies]
    ) -> Group:
        """Add jobs that run one after another, as `name[0]`, `name[1]`, …"""
        self._check_new(checked_name("chain", name))
        jobs = _several("chain", name, jobs)
        members: list[Node] = []
        with self._all_or_none():
            for place, job in enumerate(jobs):
                last: After = members[-1] if members else after
                member = f"{name}[{place}]"
                members.append(
                    self._add(member, job, after=last, before=(), group=name, policies=policies)
                )
            return self._grouped("chain", name, members, members[-1:], None)

    def group(
        self,
        name: str,
        jobs: Iterable[NewJob],
        *,
        after: After = (),
        before: After = (),
        callback: NewJob | None = None,
        **policies: Unpack[Policies],
    ) -> Group:
        """Add jobs that run side by side, as `name[0]`, `name[1]`, …

        What comes after the group comes after all of them. The `callback`, as the node
        `name.callback`, runs once when all have ended, in whatever way.
        """
        self._check_new(checked_name("group", name))
        jobs = _several("group", name, jobs)
        after, before = self._names(name, after), self._names(name, before)
        with self._all_or_none():
            members = [
                self._add(
                    f"{name}[{n}]", job, after=after, before=before, group=name, policies=policies
                )
                for n, job in enumerate(jobs)
            ]
            group = self._grouped("group", name, members, members, None)
            if callback is None:
                return group
            always: Policies = {"parent_failed": "ignore", "parent_cancelled": "ignore"}
            last = self._add(
                f"{name}.callback", callback, after=group, before=(), group=None, policies=always
            )
            return self._grouped("group", name, members, members, last)

    def enqueue(self, *, connection: Any = None) -> WorkflowRun:
        """Insert all of it, in one transaction or in the caller's; returns the ids.

        Raises WorkflowInvalid for circles and for names that no node has, before anything is sent.
        """
        return self._sender.send_workflow(self, connection)

    async def aenqueue(self, *, connection: Any = None) -> WorkflowRun:
        """`enqueue` for async code."""
        return await self._sender.asend_workflow(self, connection)

    def _add(
        self,
        name: str,
        job: NewJob,
        *,
        after: After,
        before: After,
        group: str | None,
        policies: Mapping[str, Any],
    ) -> Node:
        self._check_new(checked_name("node", name))
        if len(self.nodes) >= MOST_NODES:
            raise WorkflowInvalid(f"a workflow has at most {MOST_NODES:,} nodes at a time")
        node = Node(
            name,
            _checked_job(name, job),
            self._names(name, after),
            self._names(name, before),
            group,
            **_checked_policies(name, policies),
        )
        if node.before and self.id is None:
            raise WorkflowInvalid(
                f"node {name!r}: before= is for a workflow that is under way: "
                f"say that {node.before[0]!r} comes after {name!r}"
            )
        if name in (*node.after, *node.before):
            raise WorkflowInvalid(f"node {name!r} comes after itself")
        self.nodes[name] = node
        return node

    def _grouped(
        self,
        kind: str,
        name: str,
        members: Sequence[Node],
        ends: Sequence[Node],
        callback: Node | None,
    ) -> Group:
        if not members:
            raise WorkflowInvalid(f"{kind} {name!r} is empty: give it one job or more")
        self.groups[name] = Group(name, tuple(members), tuple(ends), callback)
        return self.groups[name]

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Who goes on after an error has not half a group."""
        nodes, groups = len(self.nodes), len(self.groups)
        try:
            yield
        except BaseException:
            while len(self.nodes) > nodes:
                self.nodes.popitem()
            while len(self.groups) > groups:
                self.groups.popitem()
            raise

    def _check_new(self, name: str) -> None:
        if name in self.nodes or name in self.groups:
            raise WorkflowInvalid(f"two nodes are named {name!r}: each needs a name of its own")

    def _names(self, name: str, given: After) -> tuple[str, ...]:
        """The names of nodes, each once; of a group those of its ends."""
        if isinstance(given, str | Node | Group):
            given = (given,)
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise WorkflowInvalid(_no_node(name, given))
        names: dict[str, None] = {}
        for one in given:
            if isinstance(one, Node):
                self._check_own(name, one.name, one)
                names[one.name] = None
            elif isinstance(one, Group) or one in self.groups:
                group = one if isinstance(one, Group) else self.groups[one]
                self._check_own(name, group.ends[0].name, group.ends[0])
                names.update(dict.fromkeys(end.name for end in group.ends))
            elif isinstance(one, str):
                names[one] = None
            else:
                raise WorkflowInvalid(_no_node(name, one))
        return tuple(names)

    def _check_own(self, name: str, other: str, node: Node) -> None:
        if self.nodes.get(other) is not node:
            raise WorkflowInvalid(
                f"node {name!r} comes after {other!r} of another workflow: "
                f"the nodes here are {listed(self.nodes)}"
            )


def _no_node(name: str, given: object) -> str:
    return f"node {name!r} comes after {given!r}: use names, or what add() and group() return"


def checked_name(what: str, name: Any) -> str:
    if not isinstance(name, str):
        raise WorkflowInvalid(f"{what} name {name!r} is not valid: use text")
    try:
        return checked_text(f"{what} name", name, NAME_LIMIT) or ""
    except ConfigError as error:
        raise WorkflowInvalid(str(error)) from None


def _several(kind: str, name: str, jobs: Any) -> Iterable[Any]:
    if isinstance(jobs, str | Mapping) or not isinstance(jobs, Iterable):
        raise WorkflowInvalid(f"{kind} {name!r} takes a list of jobs: [task.payload(…), …]")
    return jobs


def _checked_job(name: str, job: Any) -> NewJob:
    if isinstance(job, Job):
        raise WorkflowInvalid(
            f"node {name!r}: job {job.id} is in its queue already: use task.payload(…), "
            "which enqueues nothing"
        )
    if not isinstance(job, NewJob):
        raise WorkflowInvalid(f"node {name!r}: {job!r} is no job: use task.payload(…)")
    if job.unique_key is not None:
        raise WorkflowInvalid(
            f"node {name!r} has a unique key: the job that holds it may belong to nobody here; "
            "enqueue from inside the node instead"
        )
    return job


def _checked_policies(name: str, policies: Mapping[str, Any]) -> dict[str, str]:
    for policy, value in policies.items():
        if policy not in Policies.__annotations__:
            raise WorkflowInvalid(
                f"node {name!r}: unknown option {policy!r}: the options are after, before, "
                "parent_failed, parent_cancelled"
            )
        if value not in POLICIES:
            raise WorkflowInvalid(
                f"node {name!r}: {policy} {value!r} is not valid: {', '.join(POLICIES)}"
            )
    return dict(policies)

"""Bring a workflow into the database, and further nodes into one that is under way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from pgqueue.db.run import Statement, Steps, array_of
from pgqueue.engine.graph import Node, edges_of, in_order
from pgqueue.errors import (
    ConfigError,
    TooManyJobs,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowNotFound,
    WrongState,
)
from pgqueue.job import storable_json

Sql = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """A workflow in the database: its id, and the ids of its jobs by the names of their nodes."""

    id: int
    name: str
    jobs: Mapping[str, int]


def enqueue_workflow(sql: Sql, name: str, nodes: Mapping[str, Node]) -> Steps[WorkflowRun]:
    """Insert a workflow, all or nothing, inside a transaction.

    Raises WorkflowInvalid at once, before anything is sent, and TooManyJobs.
    """
    order = in_order(nodes)
    if not order:
        raise WorkflowInvalid(f"workflow {name!r} has no nodes: add one")
    return _enqueue(sql, name, order)


def _enqueue(sql: Sql, name: str, order: Sequence[Node]) -> Steps[WorkflowRun]:
    yield from _check_quotas(sql, order)
    yield from _check_queues(sql, order)
    ids = yield from _take_ids(sql, order)
    params = {"name": name, "open_job_id": max(ids.values())}
    ((workflow_id,),) = yield Statement(sql["insert_workflow"], params)
    yield from _insert(sql, workflow_id, order, ids, ids)
    return WorkflowRun(workflow_id, name, ids)


def extend_workflow(sql: Sql, workflow_id: int, nodes: Mapping[str, Node]) -> Steps[WorkflowRun]:
    """Add nodes to a workflow that has not ended, inside a transaction.

    A name that the workflow has already is left as it is: a handler that is tried again adds its
    nodes once. Raises WorkflowNotFound, WorkflowEnded, WorkflowInvalid, TooManyJobs, and WrongState
    when a node that a new one comes before does not wait any more.
    """
    rows = yield Statement(sql["find_workflow"], {"id": workflow_id})
    if not rows:
        raise WorkflowNotFound(workflow_id)
    ((name, cancelled_at, finished_at),) = rows
    nodes, known = yield from _placed(sql, workflow_id, nodes)
    new = {name: node for name, node in nodes.items() if name not in known}
    order = in_order(new, known)
    if order and (cancelled_at or finished_at):
        raise WorkflowEnded(workflow_id, "was cancelled" if cancelled_at else "has ended")
    yield from _check_quotas(sql, order)
    yield from _check_queues(sql, order)
    ids = yield from _take_ids(sql, order)
    everybody = {**known, **ids}
    yield from _hold_followers(sql, workflow_id, order, known)
    try:
        yield from _insert(sql, workflow_id, order, ids, everybody)
    except psycopg.errors.UniqueViolation:
        raise WorkflowInvalid(
            "somebody else adds nodes of the same names at this moment: try again"
        ) from None
    params = {"workflow_id": workflow_id, "ids": list(ids.values())}
    if ids:
        yield Statement(sql["tell_of_nodes"], params)
    return WorkflowRun(workflow_id, name, {name: everybody[name] for name in nodes})


def workflow_of(sql: Sql, job_id: int) -> Steps[int]:
    """The workflow of a job; raises WorkflowNotFound for a job that is in none."""
    rows = yield Statement(sql["find_workflow_of"], {"id": job_id})
    if not rows:
        raise WorkflowNotFound(None, job_id)
    ((workflow_id,),) = rows
    return int(workflow_id)


def _placed(
    sql: Sql, workflow_id: int, nodes: Mapping[str, Node]
) -> Steps[tuple[dict[str, Node], dict[str, int]]]:
    """The nodes with members in place of groups they name, and all known names with their ids."""
    asked = {name for node in nodes.values() for name in (node.name, *node.after, *node.before)}
    params = {"id": workflow_id, "names": sorted(asked)}
    rows = yield Statement(sql["find_nodes"], params)
    known: dict[str, int] = dict(rows)
    rows = yield Statement(sql["find_group_nodes"], params)
    groups: dict[str, list[str]] = {}
    for group, name, job_id in rows:
        groups.setdefault(group, []).append(name)
        known[name] = job_id
    placed = {name: _with_members(node, groups) if groups else node for name, node in nodes.items()}
    return placed, known


def _with_members(node: Node, groups: Mapping[str, list[str]]) -> Node:
    after = [one for name in node.after for one in groups.get(name, [name])]
    return Node(
        node.name, node.job, tuple(dict.fromkeys(after)), node.before, node.group,
        node.parent_failed, node.parent_cancelled,
    )  # fmt: skip


def _hold_followers(
    sql: Sql, workflow_id: int, order: Sequence[Node], known: Mapping[str, int]
) -> Steps[None]:
    """Lock the nodes that get a further parent, and see that nothing goes round."""
    followers = {known[name]: name for node in order for name in node.before}
    if not followers:
        return
    parents = {known[name] for node in order for name in node.after if name in known}
    if parents:
        # Who adds at the same moment could close a circle with this.
        yield Statement(sql["hold_adders"], {"id": workflow_id})
    rows = yield Statement(sql["hold_waiting_nodes"], {"ids": sorted(followers)})
    held = {job_id for (job_id,) in rows}
    for job_id, name in followers.items():
        if job_id not in held:
            raise WrongState(
                job_id,
                "no longer waiting",
                f"node {name!r} gets a further parent only while it waits for one",
            )
    params = {"children": sorted(followers), "parents": sorted(parents)}
    rows = yield Statement(sql["find_circle"], params)
    if rows:
        names = {job_id: name for name, job_id in known.items()}
        raise WorkflowInvalid(
            f"the workflow goes in a circle: {names[rows[0][0]]!r} comes after what is to follow it"
        )


def _check_queues(sql: Sql, order: Sequence[Node]) -> Steps[None]:
    counts = Counter(node.job.queue for node in order)
    if not counts:
        return
    params = {"queues": list(counts), "counts": list(counts.values())}
    rows = yield Statement(sql["find_full_queue"], params)
    for queue, most in rows:
        raise TooManyJobs(
            f"with this workflow more than {most} jobs of queue {queue!r} would wait, the most it "
            "takes",
            most,
        )


def _check_quotas(sql: Sql, order: Sequence[Node]) -> Steps[None]:
    counts = Counter(node.job.tenant for node in order if node.job.tenant is not None)
    if not counts:
        return
    params = {"tenants": list(counts), "counts": list(counts.values())}
    rows = yield Statement(sql["find_used_quota"], params)
    for tenant, most in rows:
        raise TooManyJobs(
            f"with this workflow more than {most} jobs of tenant {tenant!r} would wait, its quota",
            most,
        )


def _take_ids(sql: Sql, order: Sequence[Node]) -> Steps[dict[str, int]]:
    if not order:
        return {}
    ((taken,),) = yield Statement(sql["take_node_ids"], {"n": len(order)})
    return {node.name: job_id for node, job_id in zip(order, sorted(taken), strict=True)}


def _insert(
    sql: Sql,
    workflow_id: int,
    order: Sequence[Node],
    ids: Mapping[str, int],
    everybody: Mapping[str, int],
) -> Steps[None]:
    if not order:
        return
    params = {"workflow_id": workflow_id, **_columns(order, ids, everybody)}
    try:
        yield Statement(sql["insert_nodes"], params)
    except psycopg.errors.InvalidParameterValue as error:
        raise ConfigError(error.diag.message_primary or str(error)) from None
    children, parents = edges_of(order, everybody)
    if children:
        params = {"children": children, "parents": parents}
        yield Statement(sql["insert_dependencies"], params)


def _columns(
    order: Collection[Node], ids: Mapping[str, int], everybody: Mapping[str, int]
) -> dict[str, list[Any]]:
    jobs = [node.job for node in order]
    return {
        "ids": [ids[node.name] for node in order],
        "names": [node.name for node in order],
        "groups": [node.group for node in order],
        "parents_failed": [node.parent_failed for node in order],
        "parents_cancelled": [node.parent_cancelled for node in order],
        # The last one: by the order of ids it ends last, so nobody has to look again before.
        "waits_for": [
            max((everybody[name] for name in node.after), default=None) for node in order
        ],
        "tasks": [job.task for job in jobs],
        "queues": [job.queue for job in jobs],
        "payloads": [storable_json(job.payload) for job in jobs],
        "priorities": [job.priority for job in jobs],
        "run_ats": [job.run_at for job in jobs],
        "delays": [float(job.delay) for job in jobs],
        "tenants": [job.tenant for job in jobs],
        "tags": [array_of(job.tags) for job in jobs],
        "max_attempts": [job.max_attempts for job in jobs],
        "timeouts": [None if job.timeout is None else float(job.timeout) for job in jobs],
        "expires_ats": [job.expires_at for job in jobs],
        "headers": [json.dumps(job.headers or {}) for job in jobs],
        "limits": [array_of(job.limits) for job in jobs],
    }

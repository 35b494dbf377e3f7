"""What operators do to workflows and see of them: list, show, cancel, retry, run a part again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from pgqueue.db.run import Statement, Steps, in_transaction
from pgqueue.engine.cancel import Cancelled, cancel_jobs
from pgqueue.engine.operate import WAIT, Operator
from pgqueue.engine.retry_jobs import FINISHED, Retried
from pgqueue.errors import (
    WorkflowBusy,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowNotFound,
    WrongState,
)
from pgqueue.job import storable_json

Sql = Mapping[str, str]
Record = dict[str, Any]
Key = tuple[int, datetime]

RETRY, RERUN = "retry-workflow", "rerun-workflow"
"""What audit_log calls the deeds."""

COLUMNS = (
    "id", "name", "state", "nodes", "waiting", "blocked", "queued", "running", "completed",
    "failed", "cancelled", "created_at", "cancelled_at", "finished_at",
)  # fmt: skip
NODE_COLUMNS = (
    "job_id", "name", "group_name", "task", "state", "parent_failed", "parent_cancelled",
    "started_at", "finished_at",
)  # fmt: skip
ERROR_COLUMNS = ("job_id", "name", "type", "message", "next_try")

MOST_ERRORS = 10
"""That a workflow is shown with."""


def list_workflows(
    sql: Sql, *, name: str | None, state: str | None, limit: int, before: int | None
) -> Steps[list[Record]]:
    """Rows of the view workflow_status, newest first."""
    params = {"name": name, "state": state, "n": limit, "before": before}
    rows = yield Statement(sql["list_workflows"], params)
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def show_workflow(sql: Sql, workflow_id: int) -> Steps[Record]:
    """A row of workflow_status and its `graph`: a mapping for each node, with `after`: names.

    `errors` are the last ones of nodes that failed or wait for a further try. Raises
    WorkflowNotFound.
    """
    rows = yield Statement(sql["show_workflow"], {"id": workflow_id})
    if not rows:
        raise WorkflowNotFound(workflow_id)
    shown = dict(zip(COLUMNS, rows[0], strict=True))
    rows = yield Statement(sql["list_nodes"], {"id": workflow_id})
    nodes: dict[int, Record] = {
        row[0]: {**dict(zip(NODE_COLUMNS, row, strict=True)), "after": []} for row in rows
    }
    edges = yield Statement(sql["list_edges"], {"id": workflow_id})
    for child, parent in edges:
        # A node may have been added between the two looks.
        if child in nodes and parent in nodes:
            nodes[child]["after"].append(nodes[parent]["name"])
    rows = yield Statement(sql["list_node_errors"], {"id": workflow_id, "n": MOST_ERRORS})
    errors = [dict(zip(ERROR_COLUMNS, row, strict=True)) for row in rows]
    return {**shown, "graph": list(nodes.values()), "errors": errors}


def cancel_workflow(sql: Sql, workflow_id: int, operator: Operator) -> Steps[Cancelled]:
    """Cancel all that has not ended: what waits ends here, what runs when its worker has seen it.

    For a connection in autocommit. Raises WorkflowNotFound, WorkflowEnded.
    """
    params = {"id": workflow_id, **operator.params}
    if not (yield Statement(sql["call_off_workflow"], params)):
        yield from _found(sql, workflow_id)
        raise WorkflowEnded(workflow_id, "has ended")
    rows = yield Statement(sql["find_live_nodes"], {"id": workflow_id})
    ids = [job_id for (job_id,) in rows]
    return (yield from cancel_jobs(sql, ids, operator, message="its workflow was cancelled"))


def retry_workflow(
    sql: Sql, workflow_id: int, operator: Operator, tries: Mapping[str, int]
) -> Steps[Retried]:
    """Run again what failed or was cancelled; completed nodes stay as they are. One transaction."""
    steps = _retry(sql, workflow_id, operator, tries)
    return (yield from in_transaction(_held(sql, workflow_id, steps)))


def rerun_nodes(
    sql: Sql, workflow_id: int, names: Sequence[str], operator: Operator, tries: Mapping[str, int]
) -> Steps[Retried]:
    """Run these nodes again, and all that comes after them. One transaction.

    Raises WorkflowInvalid for unknown names, WrongState when one of them has not ended.
    """
    steps = _rerun(sql, workflow_id, names, operator, tries)
    return (yield from in_transaction(_held(sql, workflow_id, steps)))


def _found(sql: Sql, workflow_id: int) -> Steps[None]:
    if not (yield Statement(sql["find_workflow"], {"id": workflow_id})):
        raise WorkflowNotFound(workflow_id)


def _held(sql: Sql, workflow_id: int, steps: Steps[Retried]) -> Steps[Retried]:
    """The steps, with no pass over this workflow meanwhile."""
    yield Statement(sql["wait_for_rows"], {"wait": f"{WAIT:g}s"})
    try:
        rows = yield Statement(sql["hold_workflow"], {"id": workflow_id})
        if not rows:
            raise WorkflowNotFound(workflow_id)
        return (yield from steps)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise WorkflowBusy(workflow_id, WAIT) from None


def _retry(
    sql: Sql, workflow_id: int, operator: Operator, tries: Mapping[str, int]
) -> Steps[Retried]:
    rows = yield Statement(sql["find_uncompleted_nodes"], {"id": workflow_id})
    return (yield from _revive(sql, workflow_id, rows, operator, tries, RETRY))


def _rerun(
    sql: Sql, workflow_id: int, names: Sequence[str], operator: Operator, tries: Mapping[str, int]
) -> Steps[Retried]:
    params = {"id": workflow_id, "names": list(names)}
    rows = yield Statement(sql["find_nodes"], params)
    ids = dict(rows)
    rows = yield Statement(sql["find_group_nodes"], params)
    groups = {group for group, _, _ in rows}
    ids.update({name: job_id for _, name, job_id in rows})
    for name in names:
        if name not in ids and name not in groups:
            raise WorkflowInvalid(
                f"workflow {workflow_id} has no node {name!r}: "
                f"`pgq workflows show {workflow_id} --all` lists them"
            )
    rows = yield Statement(sql["find_nodes_from"], {"ids": sorted(ids.values())})
    for job_id, state, _ in rows:
        if state is not None:
            raise WrongState(job_id, state, "it comes after what is to run again; cancel it first")
    keys = [(job_id, finished_at) for job_id, _, finished_at in rows]
    return (yield from _revive(sql, workflow_id, keys, operator, tries, RERUN))


def _revive(  # noqa: PLR0917 - who runs what again, and as which deed
    sql: Sql,
    workflow_id: int,
    nodes: Sequence[tuple[int, datetime | None]],
    operator: Operator,
    tries: Mapping[str, int],
    action: str,
) -> Steps[Retried]:
    there = [(job_id, finished_at) for job_id, finished_at in nodes if finished_at is not None]
    gone = tuple(job_id for job_id, finished_at in nodes if finished_at is None)
    params = {
        "ids": [job_id for job_id, _ in there],
        "finished_ats": [finished_at for _, finished_at in there],
        "payloads": [None] * len(there),
        "states": list(FINISHED),
        "tasks": list(tries),
        "tries": list(tries.values()),
        "action": action,
        # What completed is run again as if it were new; what failed goes on after its steps.
        "from_start": action == RERUN,
        "details": storable_json({"workflow_id": workflow_id}),
        **operator.params,
    }
    rows = yield Statement(sql["retry_jobs"], params)
    moved = [job_id for job_id, has_moved, _ in rows if has_moved]
    if moved:
        params = {"id": workflow_id, "ids": moved}
        yield Statement(sql["reopen_nodes"], params)
    stayed = {job_id for job_id, _ in there} - set(moved)
    refused = dict.fromkeys(sorted(stayed), "somebody else runs it again at this moment")
    return Retried(retried=tuple(sorted(moved)), refused=refused, missing=gone)

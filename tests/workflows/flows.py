"""What the tests of workflows share: tasks, ends by hand, passes, and nodes by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from pgqueue import PgQueue, WorkflowRun
from pgqueue.db.run import Steps, _answer, run
from pgqueue.engine.workflow import Passed, pass_told, pass_workflows
from pgqueue.job import NewJob
from proving import rows


def job(**payload: Any) -> NewJob:
    """A job of a task that nobody has to know."""
    return NewJob(task="noop", queue="default", payload=payload)


def states(url: str, made: WorkflowRun) -> dict[str, str]:
    """The state of each node by its name, as the view tells."""
    found = rows(
        url,
        "select name, state from pgqueue.workflow_node_status where workflow_id = %s "
        "order by job_id",
        [made.id],
    )
    return dict(found)


def outcome(url: str, made: WorkflowRun) -> str:
    """The state of the workflow."""
    return str(
        rows(url, "select state from pgqueue.workflow_status where id = %s", [made.id])[0][0]
    )


def passed(pgq: PgQueue) -> Passed:
    """One pass over all that was told of, on a connection of its own."""
    with pgq.pools.connection() as connection:
        return run(connection, pass_told(pgq.sql))


class Stepped:
    """A pass that is driven statement by statement, on a connection that can be cut."""

    def __init__(self, pgq: PgQueue, workflow_id: int) -> None:
        self._connection = psycopg.connect(pgq.conninfo(), autocommit=True)
        self._steps: Steps[Passed] = pass_workflows(pgq.sql, [workflow_id])
        self._asked: Any = next(self._steps)
        self.result: Passed | None = None

    def step(self) -> bool:
        """Send one statement; False when there is none left."""
        if self.result is not None:
            return False
        try:
            self._asked = self._steps.send(_answer(self._connection, self._asked))
        except StopIteration as stop:
            self.result = stop.value
        return self.result is None

    def cut(self) -> None:
        """What the database sees of a process that was killed."""
        self._steps.close()
        self._connection.close()


def parents_of(graph: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {node["name"]: list(node["after"]) for node in graph}

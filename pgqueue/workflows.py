"""Workflows: build, enqueue, see, cancel and retry them. PgQueue has it all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from pgqueue.builder import Workflow, checked_name
from pgqueue.db.borrowed import aborrowed, borrowed, commits_itself
from pgqueue.db.run import Steps, in_transaction
from pgqueue.engine import workflow_deeds, workflow_entry
from pgqueue.engine.cancel import Cancelled
from pgqueue.engine.notify import Bell, notify, ring
from pgqueue.engine.operate import Operator, acting
from pgqueue.engine.retry_jobs import Retried
from pgqueue.engine.workflow import pass_workflows
from pgqueue.engine.workflow_entry import WorkflowRun
from pgqueue.errors import ConfigError, WorkflowNotFound
from pgqueue.job import Job, NewJob
from pgqueue.settings import Settings
from pgqueue.tasks.registry import Registry

T = TypeVar("T")

LARGEST_ID = 2**63 - 1
STATES = ("running", "completed", "failed", "cancelled")

_ANY_QUEUE = NewJob(task="", queue="", payload={})


class Workflows(ABC):
    """The workflows' part of PgQueue."""

    sql: Mapping[str, str]
    settings: Settings
    tasks: Registry
    _bell: Bell

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    @abstractmethod
    async def _arun(self, steps: Steps[T], connection: Any) -> T: ...

    # -- build -----------------------------------------------------------------

    def workflow(self, name: str) -> Workflow:
        """A workflow to be: `add` jobs to it, then `enqueue` it."""
        return Workflow(name, self)

    def workflow_of(self, job: Job | int) -> Workflow:
        """For nodes to be added to a workflow under way: that of a job, or the one with this id.

        `after` may name its nodes and groups. A name that it has already is left as it is, so that
        a handler that is tried again adds its nodes once. Raises WorkflowNotFound for a job that
        is in none; `enqueue` raises WorkflowEnded when it has ended.
        """
        if isinstance(job, Job) and job.workflow_id is None:
            raise WorkflowNotFound(None, job.id)
        workflow_id = job.workflow_id if isinstance(job, Job) else checked_workflow(job)
        return Workflow(f"workflow {workflow_id}", self, workflow_id)

    # -- see -------------------------------------------------------------------

    def list_workflows(
        self,
        *,
        name: str | None = None,
        state: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of the view workflow_status, newest first; `before` is the last id of a page."""
        return self._run(self._list_workflows(name, state, limit, before), None)

    async def alist_workflows(
        self,
        *,
        name: str | None = None,
        state: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """`list_workflows` for async code."""
        return await self._arun(self._list_workflows(name, state, limit, before), None)

    def show_workflow(self, workflow_id: int) -> dict[str, Any]:
        """A row of workflow_status with `graph`: its nodes, each with the names it comes `after`.

        `errors` are the last ones of up to 10 nodes that failed or wait for their next try. Raises
        WorkflowNotFound.
        """
        steps = workflow_deeds.show_workflow(self.sql, checked_workflow(workflow_id))
        return self._run(steps, None)

    async def ashow_workflow(self, workflow_id: int) -> dict[str, Any]:
        """`show_workflow` for async code."""
        steps = workflow_deeds.show_workflow(self.sql, checked_workflow(workflow_id))
        return await self._arun(steps, None)

    # -- stop and run again ------------------------------------------------------

    def cancel_workflow(self, workflow_id: int, *, by: Operator | None = None) -> Cancelled:
        """Cancel all jobs that have not ended: waiting ones at once, running ones by their workers.

        Raises WorkflowNotFound, and WorkflowEnded when nothing is left to cancel.
        """
        return self._run(self._cancel_workflow(workflow_id, by), None)

    async def acancel_workflow(self, workflow_id: int, *, by: Operator | None = None) -> Cancelled:
        """`cancel_workflow` for async code."""
        return await self._arun(self._cancel_workflow(workflow_id, by), None)

    def retry_workflow(self, workflow_id: int, *, by: Operator | None = None) -> Retried:
        """Run again what failed or was cancelled, in order; what completed stays as it is.

        In one transaction. `missing` are jobs that were deleted, or dropped by retention: they stay
        as they ended. Raises WorkflowNotFound and WorkflowBusy.
        """
        return self._run(self._retry_workflow(workflow_id, by), None)

    async def aretry_workflow(self, workflow_id: int, *, by: Operator | None = None) -> Retried:
        """`retry_workflow` for async code."""
        return await self._arun(self._retry_workflow(workflow_id, by), None)

    def rerun_workflow(self, workflow_id: int, *names: str, by: Operator | None = None) -> Retried:
        """Run these nodes or groups again, completed or not, and all that comes after them.

        In one transaction. Raises WorkflowNotFound, WorkflowInvalid for a name that it does not
        have, WrongState when one of them has not ended, and WorkflowBusy.
        """
        return self._run(self._rerun_workflow(workflow_id, names, by), None)

    async def arerun_workflow(
        self, workflow_id: int, *names: str, by: Operator | None = None
    ) -> Retried:
        """`rerun_workflow` for async code."""
        return await self._arun(self._rerun_workflow(workflow_id, names, by), None)

    # -- WorkflowSender: how builders bring workflows into the database --------------

    def send_workflow(self, workflow: Workflow, connection: Any) -> WorkflowRun:
        steps = self._entry(workflow)
        given = None if connection is None else borrowed(connection)
        is_alone = given is None or commits_itself(given)
        return self._run(self._sent(workflow, steps, is_alone=is_alone), given)

    async def asend_workflow(self, workflow: Workflow, connection: Any) -> WorkflowRun:
        steps = self._entry(workflow)
        given = None if connection is None else await aborrowed(connection)
        is_alone = given is None or commits_itself(given)
        return await self._arun(self._sent(workflow, steps, is_alone=is_alone), given)

    # -- the steps both ways share -------------------------------------------------

    def _entry(self, workflow: Workflow) -> Steps[WorkflowRun]:
        if workflow.id is None:
            return workflow_entry.enqueue_workflow(self.sql, workflow.name, workflow.nodes)
        return workflow_entry.extend_workflow(self.sql, workflow.id, workflow.nodes)

    def _sent(
        self, workflow: Workflow, steps: Steps[WorkflowRun], *, is_alone: bool
    ) -> Steps[WorkflowRun]:
        if not is_alone:
            run = yield from steps
            if (channel := self._bell.within(_ANY_QUEUE)) is not None:
                yield notify(self.sql, channel, "")
            return run
        run = yield from in_transaction(steps)
        if workflow.id is not None:
            # New nodes may come after some that have ended.
            yield from pass_workflows(self.sql, [run.id])
        yield from ring(self.sql, self.settings.channel, "")
        return run

    def _list_workflows(
        self, name: str | None, state: str | None, limit: int, before: int | None
    ) -> Steps[list[dict[str, Any]]]:
        if state is not None and state not in STATES:
            raise ConfigError(f"state {state!r} is not valid: {', '.join(STATES)}")
        if type(limit) is not int or not 0 < limit <= LARGEST_ID:
            raise ConfigError(f"limit {limit!r} is not valid: 1 or more")
        if name is not None:
            checked_name("workflow", name)
        after = None if before is None else checked_workflow(before)
        return workflow_deeds.list_workflows(
            self.sql, name=name, state=state, limit=limit, before=after
        )

    def _cancel_workflow(self, workflow_id: int, by: Operator | None) -> Steps[Cancelled]:
        operator, known = acting(by), checked_workflow(workflow_id)
        steps = workflow_deeds.cancel_workflow(self.sql, known, operator)
        return self._followed(known, steps)

    def _retry_workflow(self, workflow_id: int, by: Operator | None) -> Steps[Retried]:
        operator, known = acting(by), checked_workflow(workflow_id)
        steps = workflow_deeds.retry_workflow(self.sql, known, operator, self._tries_of_tasks())
        return self._followed(known, steps)

    def _rerun_workflow(
        self, workflow_id: int, names: tuple[str, ...], by: Operator | None
    ) -> Steps[Retried]:
        operator, known = acting(by), checked_workflow(workflow_id)
        if not names:
            raise ConfigError("say which nodes are to run again")
        checked = [checked_name("node", name) for name in names]
        tries = self._tries_of_tasks()
        steps = workflow_deeds.rerun_nodes(self.sql, known, checked, operator, tries)
        return self._followed(known, steps)

    def _followed(self, workflow_id: int, steps: Steps[T]) -> Steps[T]:
        """The steps, a pass over what they changed, and a hint to the workers."""
        result = yield from steps
        yield from pass_workflows(self.sql, [workflow_id])
        yield from ring(self.sql, self.settings.channel, "")
        return result

    def _tries_of_tasks(self) -> dict[str, int]:
        return {task.name: task.retry.attempts for task in self.tasks}


def checked_workflow(workflow_id: Any) -> int:
    """The id as it is; raises ConfigError for what cannot be one."""
    if type(workflow_id) is not int or not 0 < workflow_id <= LARGEST_ID:
        raise ConfigError(f"workflow id {workflow_id!r} is not valid: a whole number from 1")
    return workflow_id

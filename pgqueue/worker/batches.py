"""Batch handlers: one call for many jobs, in the slot of the first of them.

Each has its own lease, its own outcome, and is handed back like any other.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from pgqueue.engine.claim import ClaimedJob
from pgqueue.errors import LeaseLost, PayloadInvalid, Verdict
from pgqueue.events import JobStarted, LeasesLost, emit, is_wanted
from pgqueue.job import NotStorable, Outcome
from pgqueue.tasks.batching import BatchSignature
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.running import RunningJob
from pgqueue.tasks.task import Task
from pgqueue.worker.endings import unfit
from pgqueue.worker.gathering import Gatherer, Gathering
from pgqueue.worker.hand import Hand, Try, handed_back
from pgqueue.worker.results import completed
from pgqueue.worker.runner import Runner, Settled, put_off, tell


class _Member(NamedTuple):
    job: ClaimedJob
    running: RunningJob
    item: Any


class Batches:
    """Runs the jobs of batch tasks; a worker has one. All methods belong to its event loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        gatherer: Gatherer,
        runner: Runner,
        hand: Hand,
    ) -> None:
        self.tasks = frozenset(task.name for task in registry if task.batching is not None)
        self._registry = registry
        self._gatherer = gatherer
        self._runner = runner
        self._hand = hand
        self._endings = runner.endings
        self._calls: dict[Try, tuple[Try, Sequence[_Member]]] = {}
        runner.in_batches = self._calls

    async def run(self, job: ClaimedJob) -> Settled | None:
        """Run the job together with others; None when its lease was lost. Never raises.

        Cancelling this coroutine hands all of them back without costing an attempt.
        """
        task = self._registry.get(job.task)
        assert task.batching is not None  # noqa: S101 - only such tasks come here
        gathering = Gathering(job, task.batching)
        try:
            # A suspect runs alone: if the worker dies, there is one to blame.
            if not job.suspect:
                await self._gatherer.fill(gathering)
            return await self._run_together(task, gathering.jobs)
        except asyncio.CancelledError:
            return Settled(handed_back(job))
        except Exception as error:  # noqa: BLE001 - told, and no error of ours may end a worker
            return put_off(job, error)
        finally:
            gathering.is_open = False
            self._hand_back(gathering.jobs[1:])

    def takes_along(self, job: ClaimedJob) -> bool:
        """Whether a call to come takes the job along, which then needs no slot of its own."""
        return self._gatherer.joined(job)

    def cancel(self, key: Try) -> Try | None:
        """Note that somebody wants this job cancelled; returns which slot is to be stopped, if any.

        One job of a call cannot be stopped alone: it ends with the call, which is stopped once all
        of its jobs are unwanted.
        """
        if key not in self._calls:
            return key
        leader, members = self._calls[key]
        for member in members:
            if (member.job.id, member.job.lease) == key:
                member.running.cancel_requested = True
                member.running.stop()
        return leader if all(member.running.cancel_requested for member in members) else None

    # -- one call --------------------------------------------------------------------

    async def _run_together(self, task: Task[Any], jobs: Sequence[ClaimedJob]) -> Settled | None:
        leader, started = jobs[0], time.monotonic()
        members: list[_Member] = []
        outcomes: dict[Try, Outcome | None] = {}
        for job in jobs:
            if is_wanted(JobStarted):
                emit(JobStarted(job.id, job.task, job.attempt))
            made = await self._member(task, job)
            if isinstance(made, _Member):
                members.append(made)
            else:
                outcomes[job.id, job.lease] = made
        if members:
            outcomes |= await self._called(task, (leader.id, leader.lease), members)
        for job in jobs:
            if (outcome := outcomes[job.id, job.lease]) is not None:
                tell(job, outcome, started)
        for job in jobs[1:]:
            self._settle(job, outcomes[job.id, job.lease])
        outcome = outcomes[leader.id, leader.lease]
        return None if outcome is None else Settled(outcome)

    async def _member(self, task: Task[Any], job: ClaimedJob) -> _Member | Outcome:
        if ended := unfit(job):
            return ended
        try:
            item = task.signature.arguments(job.payload)
        except PayloadInvalid as error:
            return await self._endings.of_invalid(job, error)
        except Exception as error:  # noqa: BLE001 - a type's own validator may raise anything
            return self._endings.failed(job, "payload-invalid", error)
        running = self._runner.new_running(job)
        running.is_async = task.is_async
        running.may_park = False
        return _Member(job, running, item)

    async def _called(
        self, task: Task[Any], leader: Try, members: Sequence[_Member]
    ) -> dict[Try, Outcome | None]:
        keys = [(member.job.id, member.job.lease) for member in members]
        self._calls.update(dict.fromkeys(keys, (leader, members)))
        for key, member in zip(keys, members, strict=True):
            if self._hand.gathered.pop(key, None) is not None:
                self._hand.beside[key] = member.job
        limit = asyncio.timeout(_timeout(task, members))
        try:
            async with limit:
                values = _one_each(members, await self._call(task, members))
        # sys.exit() and exception groups, too: the handler fails, and the worker goes on.
        except BaseException as error:  # noqa: BLE001 - recorded
            if isinstance(error, LeaseLost) and any(error.is_of(*key) for key in keys):
                return self._without_lost(members, error)
            return self._all_failed(task, members, error, timed_out=limit.expired())
        finally:
            for key in keys:
                del self._calls[key]
        return {
            key: self._outcome(task, member, value)
            for key, member, value in zip(keys, members, values, strict=True)
        }

    async def _call(self, task: Task[Any], members: Sequence[_Member]) -> Any:
        signature = task.signature
        assert isinstance(signature, BatchSignature)  # noqa: S101 - only such tasks come here
        arguments: dict[str, Any] = {}
        if signature.items_parameter:
            arguments[signature.items_parameter] = [member.item for member in members]
        if signature.jobs_parameter:
            arguments[signature.jobs_parameter] = [
                member.job.job(member.running) for member in members
            ]
        if task.is_async:
            return await task.function(**arguments)
        call = functools.partial(task.function, **arguments)
        return await self._runner.in_thread(members[0].running, call)

    def _outcome(self, task: Task[Any], member: _Member, value: Any) -> Outcome:
        if isinstance(value, BaseException):
            return self._failed(task, member, value)
        try:
            return completed(member.job, value)
        except (NotStorable, Verdict) as error:
            return self._failed(task, member, error)

    def _failed(
        self, task: Task[Any], member: _Member, error: BaseException, *, timed_out: bool = False
    ) -> Outcome:
        return self._endings.of_error(task, member.job, member.running, error, timed_out=timed_out)

    def _all_failed(
        self,
        task: Task[Any],
        members: Sequence[_Member],
        error: BaseException,
        *,
        timed_out: bool,
    ) -> dict[Try, Outcome | None]:
        """Each by its own rule. What broke one's connection was no fault of the others."""
        is_lost = any(member.running.database_lost for member in members)
        for member in members:
            member.running.stop()
            member.running.database_lost = is_lost
        return {
            (member.job.id, member.job.lease): self._failed(
                task, member, error, timed_out=timed_out
            )
            for member in members
        }

    def _without_lost(
        self, members: Sequence[_Member], error: LeaseLost
    ) -> dict[Try, Outcome | None]:
        """One is no longer ours: nothing is written of it, and the others come again."""
        emit(LeasesLost(members[0].job.worker_id, (error.job_id,)))
        return {
            (member.job.id, member.job.lease): (
                None if member.job.id == error.job_id else handed_back(member.job)
            )
            for member in members
        }

    def _settle(self, job: ClaimedJob, outcome: Outcome | None) -> None:
        self._hand.gathered.pop((job.id, job.lease), None)
        self._hand.beside.pop((job.id, job.lease), None)
        if outcome is not None:
            self._hand.end(outcome)

    def _hand_back(self, jobs: Sequence[ClaimedJob]) -> None:
        """Those that the call did not come to, or that an error of ours left in the middle."""
        for job in jobs:
            key = (job.id, job.lease)
            if key in self._hand.gathered or key in self._hand.beside:
                self._settle(job, handed_back(job))


def _timeout(task: Task[Any], members: Sequence[_Member]) -> float | None:
    """The shortest that any of them has."""
    limits = [member.job.timeout or task.options.timeout for member in members]
    return min((limit for limit in limits if limit is not None), default=None)


def _one_each(members: Sequence[_Member], returned: Any) -> Sequence[Any]:
    """What each job gets of what the handler returned; raises ValueError."""
    if isinstance(returned, Verdict):
        raise returned
    if returned is None:
        return [None] * len(members)
    if isinstance(returned, list | tuple) and len(returned) == len(members):
        return returned
    what = f"{len(returned)}" if isinstance(returned, list | tuple) else type(returned).__name__
    raise ValueError(
        f"a call for {len(members)} jobs returned {what}: it returns a list of as many results, in "
        "the order of the jobs, exceptions for those that failed; or None"
    )

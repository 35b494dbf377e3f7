"""Runs one claimed job and says how it ended: a value goes in, an Outcome comes out."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticSerializationError

from pgqueue.db.pools import Pools
from pgqueue.db.run import Statement, arun, run
from pgqueue.engine.finish import finish_within, prove_lease
from pgqueue.engine.notes import note_statements
from pgqueue.engine.retry import wait_or_end
from pgqueue.errors import (
    Cancel,
    Fail,
    HandlerCrashed,
    LeaseLost,
    PayloadInvalid,
    RetryAfter,
    Snooze,
    Verdict,
)
from pgqueue.events import JobEnded, JobRequeued, JobStarted, LeasesLost, emit
from pgqueue.job import Ended, Job, NotStorable, Outcome, Requeued, State, storable_json
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.running import RunningJob
from pgqueue.tasks.task import Task
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.processes import NotStarted, Processes
from pgqueue.worker.results import completed
from pgqueue.worker.rollout import ROLLOUT_WAIT

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 16_000
"""Characters that are kept of an error; of a traceback the end, where the cause stands."""

CRASH_LIMIT = 3
"""Workers that died with this job as their only suspect before it is quarantined."""

DATABASE_AWAY_WAIT = 1.0
"""Seconds before a job comes again whose connection broke under it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a try ended; `written` when the handler's own transaction holds the ending already."""

    outcome: Outcome
    written: bool = False


class Runner:
    """Knows the tasks and the ways to run them; `run` never raises."""

    def __init__(
        self,
        *,
        tasks: Registry,
        pools: Pools,
        sql: Mapping[str, str],
        threads: ThreadPoolExecutor,
        notepad: Notepad,
        processes: Processes,
        redact: Callable[[str], str],
        is_rollout: Callable[[], Awaitable[bool]],
    ) -> None:
        self._tasks = tasks
        self._pools = pools
        self._sql = sql
        self._threads = threads
        self._notepad = notepad
        self._processes = processes
        self._redact = redact
        self._is_rollout = is_rollout
        self._running: dict[int, RunningJob] = {}
        self.lingering: set[asyncio.Future[Any]] = set()
        """Threads that still run although their job has ended here: timed out or handed back."""

    async def run(self, job: Job) -> Settled | None:
        """Run the handler; None when the lease was lost meanwhile and nothing is to be written.

        Cancelling this coroutine hands the job back without costing an attempt.
        """
        started = time.monotonic()
        emit(JobStarted(job.id, job.task, job.attempt))
        running = RunningJob(
            job.id,
            _lease(job),
            self._pools,
            lambda began: prove_lease(self._sql, job.id, _lease(job), began),
            self._notepad,
        )
        self._running[job.id] = running
        try:
            settled = await self._settle(job, running)
        except LeaseLost:
            emit(LeasesLost(job.worker_id or 0, (job.id,)))
            return None
        finally:
            del self._running[job.id]
        _tell(job, settled.outcome, time.monotonic() - started)
        return settled

    def cancel(self, job_id: int) -> None:
        """Note that somebody wants this running job cancelled; the caller then cancels `run`."""
        if job_id in self._running:
            self._running[job_id].cancel_requested = True
            self._running[job_id].stop()

    async def _settle(self, job: Job, running: RunningJob) -> Settled:
        if unfit := _unfit(job):
            return Settled(unfit)
        task = self._tasks.get(job.task)
        try:
            arguments = task.signature.arguments(job.payload)
        except PayloadInvalid as error:
            return Settled(await self._of_invalid(job, error))
        if task.signature.job_parameter:
            arguments[task.signature.job_parameter] = replace(job, _handle=running)
        # A job inserted by SQL or by a schedule carries no timeout of its own.
        limit = asyncio.timeout(job.timeout or task.options.timeout)
        try:
            async with limit:
                return await self._call(task, job, running, arguments)
        except LeaseLost:
            raise
        # SystemExit, too: a handler that calls sys.exit() fails, and the worker goes on.
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - recorded
            reason = "timeout" if limit.expired() else _reason_of(error)
            return Settled(self._of_error(task, job, running, reason, error))

    async def _call(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        if task.isolation == "process":
            result = await self._processes.run(task, job, running)
            return Settled(Ended(job.id, running.lease, State.COMPLETED, result))
        place = task.signature.connection_parameter
        if task.is_async and place is None:
            return Settled(completed(job, await task.function(**arguments)))
        if task.is_async:
            return await self._call_in_transaction(task, job, running, arguments)
        if place is None:
            value = await self._in_thread(running, functools.partial(task.function, **arguments))
            return Settled(completed(job, value))
        call = functools.partial(self._thread_transaction, task, job, running, arguments)
        settled: Settled = await self._in_thread(running, call)
        return settled

    async def _call_in_transaction(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        async with running.aopen() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = completed(job, await task.function(**arguments))
            steps = finish_within(self._sql, ended, began, self._last_notes(job))
            if not await arun(connection, steps):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    def _thread_transaction(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        with running.open() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = completed(job, task.function(**arguments))
            steps = finish_within(self._sql, ended, began, self._last_notes(job))
            if not run(connection, steps):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    def _last_notes(self, job: Job) -> list[Statement]:
        # The job's row goes with this transaction, and its notes have to be there before.
        return note_statements(self._sql, self._notepad.take_of(job.id), time.monotonic())

    def _of_error(
        self,
        task: Task[Any],
        job: Job,
        running: RunningJob,
        reason: str,
        error: BaseException,
    ) -> Outcome:
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            return _of_cancelling(job, running)
        if isinstance(error, Verdict):
            return self._of_verdict(job, error)
        if isinstance(error, NotStorable | PydanticSerializationError):
            return self._failed(job, "bad-result", error)
        if running.database_lost or isinstance(error, NotStarted):
            return Requeued(job.id, running.lease, DATABASE_AWAY_WAIT, uncounted=1)
        return self._after_failure(task, job, reason, error)

    async def _of_invalid(self, job: Job, error: PayloadInvalid) -> Outcome:
        if not await self._is_rollout():
            return self._failed(job, "payload-invalid", error)
        # A newer version may be on its way that can read it.
        described = self._described(job, "payload-invalid", error)
        return Requeued(job.id, _lease(job), ROLLOUT_WAIT, uncounted=1, error=described)

    def _failed(self, job: Job, reason: str, error: BaseException) -> Ended:
        described = self._described(job, reason, error)
        return Ended(job.id, _lease(job), State.FAILED, error=described)

    def _after_failure(
        self, task: Task[Any], job: Job, reason: str, error: BaseException
    ) -> Outcome:
        if job.attempt >= job.max_attempts:
            return self._failed(job, reason, error)
        delay = wait_or_end(task.retry, job.attempt, error, random.random)
        if delay is None:
            return self._failed(job, reason, error)
        described = self._described(job, reason, error)
        return Requeued(job.id, _lease(job), delay, error=described)

    def _of_verdict(self, job: Job, verdict: Verdict) -> Outcome:
        lease = _lease(job)
        match verdict:
            case Snooze(seconds=seconds):
                return Requeued(job.id, lease, max(0.0, seconds), uncounted=1)
            case RetryAfter(seconds=seconds) if job.attempt < job.max_attempts:
                error = self._described(job, "retry-after", verdict)
                return Requeued(job.id, lease, max(0.0, seconds), error=error)
            case Cancel():
                error = self._described(job, "cancelled", verdict)
                return Ended(job.id, lease, State.CANCELLED, error=error)
            case Fail():
                return self._failed(job, "fail", verdict)
            case _:
                return self._failed(job, "retry-after", verdict)

    def _described(self, job: Job, reason: str, error: BaseException) -> str:
        entry = {
            "attempt": job.attempt,
            "reason": reason,
            "type": type(error).__qualname__,
            "message": self._safe(str(error))[:MESSAGE_LIMIT],
        }
        if not isinstance(error, Verdict | PayloadInvalid | NotStorable):
            lines = traceback.format_exception(error)
            entry["traceback"] = self._safe("".join(lines))[-TRACEBACK_LIMIT:]
        return storable_json(entry)

    def _safe(self, text: str) -> str:
        """Without secrets, by the app's hook, and without what Postgres cannot store."""
        return _storable(self._redact(text))

    async def _in_thread(self, running: RunningJob, call: functools.partial[Any]) -> Any:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, context.run, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # A thread cannot be stopped, only told; whatever it still does is fenced by the lease.
            running.stop()
            if not future.done():
                self.lingering.add(future)
                future.add_done_callback(self._ended_late)
            raise

    def _ended_late(self, future: asyncio.Future[Any]) -> None:
        self.lingering.discard(future)
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as forgotten


def _lease(job: Job) -> int:
    assert job.lease is not None  # noqa: S101 - a claimed job has one; the type cannot say it
    return job.lease


def _reason_of(error: BaseException) -> str:
    return "crashed" if isinstance(error, HandlerCrashed) else "exception"


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _of_cancelling(job: Job, running: RunningJob) -> Outcome:
    if not running.cancel_requested:
        return Requeued(job.id, running.lease, uncounted=1)
    return Ended(job.id, running.lease, State.CANCELLED, error=_note(job, "cancelled", "on demand"))


def _unfit(job: Job) -> Ended | None:
    """How a job ends that must not be started; decided here, where its task is known."""
    if job.crashes >= CRASH_LIMIT:
        message = f"{job.crashes} workers died while they ran this job and no other suspect"
        return Ended(job.id, _lease(job), State.FAILED, error=_note(job, "crashed", message))
    if job.cancel_requested_at is not None:
        message = "on demand, before it ran again"
        error = _note(job, "cancelled", message)
        return Ended(job.id, _lease(job), State.CANCELLED, error=error)
    if job.expires_at is not None and job.started_at and job.expires_at <= job.started_at:
        error = _note(job, "expired", "not started before expires_at")
        return Ended(job.id, _lease(job), State.CANCELLED, error=error)
    return None


def _note(job: Job, reason: str, message: str) -> str:
    return storable_json({"attempt": job.attempt, "reason": reason, "message": message})


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _tell(job: Job, outcome: Outcome, seconds: float) -> None:
    if isinstance(outcome, Ended):
        state = str(outcome.state)
        emit(JobEnded(job.id, job.task, job.attempt, state, seconds, outcome.error))
    else:
        emit(JobRequeued(job.id, job.task, job.attempt, outcome.delay, seconds, outcome.error))

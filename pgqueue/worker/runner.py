"""Runs one claimed job and says how it ended: a value goes in, an Outcome comes out."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import random
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pgqueue.db.pools import Pools
from pgqueue.db.run import arun, run
from pgqueue.engine.finish import finish_within, prove_lease
from pgqueue.engine.retry import wait_after
from pgqueue.errors import Cancel, Fail, LeaseLost, PayloadInvalid, RetryAfter, Snooze, Verdict
from pgqueue.events import JobEnded, JobRequeued, JobStarted, LeasesLost, emit
from pgqueue.job import Ended, Job, NotStorable, Outcome, Requeued, State, storable_json
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.running import RunningJob
from pgqueue.tasks.task import Task

RESULT_LIMIT = 1_000_000
"""Bytes of JSON that a result may have."""

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 16_000
"""Characters that are kept of an error; of a traceback the end, where the cause stands."""

LONGEST_WAIT = 100 * 366 * 86_400
"""Seconds that a handler may ask for: what the database can add to a time, and to spare."""

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
        tasks: Registry,
        pools: Pools,
        sql: Mapping[str, str],
        threads: ThreadPoolExecutor,
        on_no_partition: Callable[[], None],
    ) -> None:
        self._on_no_partition = on_no_partition
        self._tasks = tasks
        self._pools = pools
        self._sql = sql
        self._threads = threads
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
        )
        try:
            settled = await self._settle(job, running)
        except LeaseLost:
            emit(LeasesLost(job.worker_id or 0, (job.id,)))
            return None
        _tell(job, settled.outcome, time.monotonic() - started)
        return settled

    async def _settle(self, job: Job, running: RunningJob) -> Settled:
        task = self._tasks.get(job.task)
        try:
            arguments = task.signature.arguments(job.payload)
        except Exception as error:  # noqa: BLE001 - a type's own validator may raise anything
            return Settled(_failed(job, "payload-invalid", error))
        if task.signature.job_parameter:
            arguments[task.signature.job_parameter] = replace(job, _handle=running)
        # A job inserted by SQL or by a schedule carries no timeout of its own.
        limit = asyncio.timeout(job.timeout or task.options.timeout)
        try:
            async with limit:
                return await self._call(task, job, running, arguments)
        except LeaseLost:
            raise
        # sys.exit() and exception groups, too: the handler fails, and the worker goes on.
        except BaseException as error:  # noqa: BLE001 - recorded
            if _lacks_partition(error):
                self._on_no_partition()
                return Settled(Requeued(job.id, _lease(job), DATABASE_AWAY_WAIT, uncounted=1))
            reason = "timeout" if limit.expired() else "exception"
            return Settled(_of_error(task, job, running, reason, error))

    async def _call(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        place = task.signature.connection_parameter
        if task.is_async and place is None:
            return Settled(_completed(job, await task.function(**arguments)))
        if task.is_async:
            return await self._call_in_transaction(task, job, running, arguments)
        if place is None:
            value = await self._in_thread(running, functools.partial(task.function, **arguments))
            return Settled(_completed(job, value))
        call = functools.partial(self._thread_transaction, task, job, running, arguments)
        settled: Settled = await self._in_thread(running, call)
        return settled

    async def _call_in_transaction(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        async with running.aopen() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = _completed(job, await task.function(**arguments))
            if not await arun(connection, finish_within(self._sql, ended, began)):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    def _thread_transaction(
        self, task: Task[Any], job: Job, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        with running.open() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = _completed(job, task.function(**arguments))
            if not run(connection, finish_within(self._sql, ended, began)):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    async def _in_thread(self, running: RunningJob, call: functools.partial[Any]) -> Any:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, context.run, _carried, call)
        try:
            value, error = await asyncio.shield(future)
        except asyncio.CancelledError:
            # A thread cannot be stopped, only told; whatever it still does is fenced by the lease.
            running.stop()
            if not future.done():
                self.lingering.add(future)
                future.add_done_callback(self._ended_late)
            raise
        if error is not None:
            raise error
        return value

    def _ended_late(self, future: asyncio.Future[Any]) -> None:
        self.lingering.discard(future)
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as forgotten


def _carried(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a thread's call gave, its error as a value.

    An asyncio Future refuses StopIteration and would never be done; KeyboardInterrupt in one ends
    the event loop.
    """
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - raised again on the loop
        return None, error


def _lease(job: Job) -> int:
    assert job.lease is not None  # noqa: S101 - a claimed job has one; the type cannot say it
    return job.lease


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _completed(job: Job, value: Any) -> Ended:
    """The ending of a handler that returned; raises what it returned if that is a verdict."""
    if isinstance(value, Verdict):
        raise value
    if value is None:
        return Ended(job.id, _lease(job), State.COMPLETED)
    try:
        plain = to_jsonable_python(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotStorable(f"not JSON: {error}") from None
    result = storable_json(plain, limit=RESULT_LIMIT)
    return Ended(job.id, _lease(job), State.COMPLETED, result)


def _failed(job: Job, reason: str, error: BaseException) -> Ended:
    return Ended(job.id, _lease(job), State.FAILED, error=_described(job, reason, error))


def _of_error(
    task: Task[Any], job: Job, running: RunningJob, reason: str, error: BaseException
) -> Outcome:
    if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
        return Requeued(job.id, running.lease, uncounted=1)
    if isinstance(error, Verdict):
        return _of_verdict(job, error)
    if isinstance(error, NotStorable):
        return _failed(job, "bad-result", error)
    if running.database_lost:
        return Requeued(job.id, running.lease, DATABASE_AWAY_WAIT, uncounted=1)
    return _after_failure(task, job, reason, error)


def _lacks_partition(error: BaseException) -> bool:
    """Whether a handler's own transaction met a day of finished_jobs that was not made yet."""
    return (
        isinstance(error, psycopg.errors.CheckViolation)
        and error.diag.constraint_name is None
        and (error.diag.table_name or "").startswith("finished_jobs")
    )


def _after_failure(task: Task[Any], job: Job, reason: str, error: BaseException) -> Outcome:
    if job.attempt >= job.max_attempts:
        return _failed(job, reason, error)
    delay = wait_after(task.retry, job.attempt, random.random)
    return Requeued(job.id, _lease(job), delay, error=_described(job, reason, error))


def _of_verdict(job: Job, verdict: Verdict) -> Outcome:
    lease = _lease(job)
    match verdict:
        case Snooze(seconds=seconds) | RetryAfter(seconds=seconds) if not _is_wait(seconds):
            wrong = ValueError(
                f"{type(verdict).__name__}({seconds!r}): seconds, at most {LONGEST_WAIT:,}"
            )
            return _failed(job, "exception", wrong)
        case Snooze(seconds=seconds):
            return Requeued(job.id, lease, max(0.0, seconds), uncounted=1)
        case RetryAfter(seconds=seconds) if job.attempt < job.max_attempts:
            error = _described(job, "retry-after", verdict)
            return Requeued(job.id, lease, max(0.0, seconds), error=error)
        case Cancel():
            error = _described(job, "cancelled", verdict)
            return Ended(job.id, lease, State.CANCELLED, error=error)
        case Fail():
            return _failed(job, "fail", verdict)
        case _:
            return _failed(job, "retry-after", verdict)


def _is_wait(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and math.isfinite(seconds) and seconds <= LONGEST_WAIT


def _described(job: Job, reason: str, error: BaseException) -> str:
    entry = {
        "attempt": job.attempt,
        "reason": reason,
        "type": type(error).__qualname__,
        "message": _storable(str(error))[:MESSAGE_LIMIT],
    }
    if not isinstance(error, Verdict | PayloadInvalid | NotStorable):
        lines = traceback.format_exception(error)
        entry["traceback"] = _storable("".join(lines))[-TRACEBACK_LIMIT:]
    return storable_json(entry)


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _tell(job: Job, outcome: Outcome, seconds: float) -> None:
    if isinstance(outcome, Ended):
        state = str(outcome.state)
        emit(JobEnded(job.id, job.task, job.attempt, state, seconds, outcome.error))
    else:
        emit(JobRequeued(job.id, job.task, job.attempt, outcome.delay, seconds, outcome.error))

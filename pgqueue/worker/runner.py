"""Runs one claimed job and says how it ended: a value goes in, an Outcome comes out."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg

from pgqueue.db.pools import Pools
from pgqueue.db.run import Statement, arun, run
from pgqueue.engine.claim import ClaimedJob
from pgqueue.engine.finish import finish_within, prove_lease
from pgqueue.engine.notes import note_statements
from pgqueue.engine.steps import StepBook
from pgqueue.errors import DatabaseUnreachable, LeaseLost, PayloadInvalid
from pgqueue.events import (
    DutyFailed,
    JobEnded,
    JobRequeued,
    JobStarted,
    LeasesLost,
    emit,
    is_wanted,
)
from pgqueue.job import Ended, Outcome, Requeued, State
from pgqueue.tasks.parents import find_parents
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.running import Keeping, RunningJob, Ways
from pgqueue.tasks.task import Task
from pgqueue.worker.endings import DATABASE_AWAY_WAIT, Endings, unfit
from pgqueue.worker.hand import Try, handed_back
from pgqueue.worker.notepad import Notepad
from pgqueue.worker.processes import Processes
from pgqueue.worker.results import completed, json_of


class Settled(NamedTuple):
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
        endings: Endings,
        on_no_partition: Callable[[], None],
        on_wait: Callable[[], None],
    ) -> None:
        self._on_no_partition = on_no_partition
        self._on_wait = on_wait
        self._tasks = tasks
        self._pools = pools
        self._sql = sql
        self._threads = threads
        self._notepad = notepad
        self._processes = processes
        self.endings = endings
        keeping = Keeping(StepBook(sql), json_of)
        prove = functools.partial(prove_lease, sql)
        self._ways = Ways(pools, prove, notepad, keeping, self._is_running)
        self._running: dict[Try, RunningJob] = {}
        self.in_batches: Container[Try] = ()
        """Tries that run in the call of a batch."""
        self.lingering: set[asyncio.Future[Any]] = set()
        """Threads that still run although their job has ended here: timed out or handed back."""
        self.on_late_end: Callable[[], None] = _nothing
        """Called when one of them has ended after all."""

    async def run(self, job: ClaimedJob) -> Settled | None:
        """Run the handler; None when the lease was lost meanwhile and nothing is to be written.

        Cancelling this coroutine hands the job back without costing an attempt.
        """
        started = time.monotonic()
        if is_wanted(JobStarted):
            emit(JobStarted(job.id, job.task, job.attempt))
        key = (job.id, job.lease)
        self._running[key] = running = self.new_running(job)
        try:
            settled = await self._settle(job, running)
        except LeaseLost:
            emit(LeasesLost(job.worker_id, (job.id,)))
            return None
        except asyncio.CancelledError:
            return Settled(handed_back(job))
        except Exception as error:  # noqa: BLE001 - told, and no error of ours may end a worker
            return put_off(job, error)
        finally:
            del self._running[key]
        tell(job, settled.outcome, started)
        return settled

    def new_running(self, job: ClaimedJob) -> RunningJob:
        """What its handler asks through its Job."""
        return RunningJob(job.id, job.lease, self._ways)

    def _is_running(self, key: Try) -> bool:
        return key in self._running or key in self.in_batches

    def cancel(self, key: Try) -> None:
        """Note that somebody wants this running job cancelled; the caller then cancels `run`."""
        if key in self._running:
            self._running[key].cancel_requested = True
            self.stop(key)

    def stop(self, key: Try) -> None:
        """Note that the worker ends this running try; the caller then cancels `run`."""
        if key in self._running:
            self._running[key].stop()

    async def _settle(self, job: ClaimedJob, running: RunningJob) -> Settled:
        if ended := unfit(job):
            return Settled(ended)
        task = self._tasks.get(job.task)
        running.is_async = task.is_async
        signature = task.signature
        try:
            arguments = signature.arguments(job.payload)
            if signature.parents_parameter:
                await self._add_parents(task, job, arguments)
        except Exception as error:  # noqa: BLE001 - a type's own validator may raise anything
            return Settled(await self._without_arguments(job, error))
        if signature.job_parameter:
            arguments[signature.job_parameter] = job.job(running)
        # A job inserted by SQL or by a schedule carries no timeout of its own.
        seconds = job.timeout or task.options.timeout
        limit = None if seconds is None else asyncio.timeout(seconds)
        try:
            if limit is None:
                return await self._call(task, job, running, arguments)
            async with limit:
                return await self._call(task, job, running, arguments)
        # sys.exit() and exception groups, too: the handler fails, and the worker goes on.
        except BaseException as error:
            if isinstance(error, LeaseLost) and error.is_of(job.id, job.lease):
                raise
            if _lacks_partition(error):
                self._on_no_partition()
                return Settled(Requeued(job.id, job.lease, DATABASE_AWAY_WAIT, uncounted=1))
            timed_out = limit is not None and limit.expired()
            outcome = self.endings.of_error(task, job, running, error, timed_out=timed_out)
            if isinstance(outcome, Requeued) and outcome.waits:
                self._on_wait()
            return Settled(outcome)

    async def _add_parents(
        self, task: Task[Any], job: ClaimedJob, arguments: dict[str, Any]
    ) -> None:
        """Put what the job's parents gave among the arguments."""
        # A child process asks for them itself; looked at here, too, so that its job fails as any
        # other does whose parents gave what it cannot take.
        signature = task.signature
        steps = find_parents(self._sql, task.name, job.id, signature.parents_kind)
        async with self._pools.aconnection() as connection:
            arguments[signature.parents_parameter or ""] = await arun(connection, steps)

    async def _without_arguments(self, job: ClaimedJob, error: Exception) -> Outcome:
        """How a try ends that has nothing to call its handler with."""
        if isinstance(error, PayloadInvalid):
            return await self.endings.of_invalid(job, error)
        if isinstance(error, psycopg.OperationalError | DatabaseUnreachable):
            return Requeued(job.id, job.lease, DATABASE_AWAY_WAIT, uncounted=1)
        return self.endings.failed(job, "payload-invalid", error)

    async def _call(
        self, task: Task[Any], job: ClaimedJob, running: RunningJob, arguments: dict[str, Any]
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
            value = await self.in_thread(running, functools.partial(task.function, **arguments))
            return Settled(completed(job, value))
        call = functools.partial(self._thread_transaction, task, job, running, arguments)
        settled: Settled = await self.in_thread(running, call)
        return settled

    async def _call_in_transaction(
        self, task: Task[Any], job: ClaimedJob, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        async with running.aopen() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = completed(job, await task.function(**arguments))
            steps = finish_within(self._sql, ended, began, self._last_notes(job))
            if not await arun(connection, steps):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    def _thread_transaction(
        self, task: Task[Any], job: ClaimedJob, running: RunningJob, arguments: dict[str, Any]
    ) -> Settled:
        with running.open() as (connection, began):
            arguments[task.signature.connection_parameter or ""] = connection
            ended = completed(job, task.function(**arguments))
            running.check_told()
            steps = finish_within(self._sql, ended, began, self._last_notes(job))
            if not run(connection, steps):
                raise LeaseLost(job.id, running.lease)
        return Settled(ended, written=True)

    def _last_notes(self, job: ClaimedJob) -> list[Statement]:
        # The job's row goes with this transaction, and its notes have to be there before.
        return note_statements(self._sql, self._notepad.take_of(job.id), time.monotonic())

    async def in_thread(self, running: RunningJob, call: functools.partial[Any]) -> Any:
        """Call it in a thread, which is told to stop when this coroutine is cancelled."""
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
        self.on_late_end()
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as forgotten


def _nothing() -> None: ...


def _carried(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a thread's call gave, its error as a value.

    An asyncio Future refuses StopIteration and would never be done; KeyboardInterrupt in one ends
    the event loop.
    """
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - raised again on the loop
        return None, error


def _lacks_partition(error: BaseException) -> bool:
    """Whether a handler's own transaction met a day of finished_jobs that was not made yet."""
    return (
        isinstance(error, psycopg.errors.CheckViolation)
        and error.diag.constraint_name is None
        and (error.diag.table_name or "").startswith("finished_jobs")
    )


def put_off(job: ClaimedJob, error: Exception) -> Settled:
    """After an error in our own code: the job waits a minute for better days and loses no try."""
    emit(DutyFailed("run", f"{type(error).__name__}: {error}"))
    return Settled(Requeued(job.id, job.lease, delay=60.0, uncounted=1))


def tell(job: ClaimedJob, outcome: Outcome, started: float) -> None:
    """Say how a try ended that began at `started`, on the monotonic clock."""
    if isinstance(outcome, Requeued):
        seconds = time.monotonic() - started
        emit(JobRequeued(job.id, job.task, job.attempt, outcome.delay, seconds, outcome.error))
    elif is_wanted(JobEnded):
        seconds = time.monotonic() - started
        state = str(outcome.state)
        emit(JobEnded(job.id, job.task, job.attempt, state, seconds, outcome.error))

"""From what a try raised to its outcome: retry, snooze, hand back, fail, cancel."""

from __future__ import annotations

import asyncio
import math
import random
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from pgqueue.engine.claim import ClaimedJob
from pgqueue.engine.retry import wait_or_end
from pgqueue.errors import (
    Cancel,
    Fail,
    HandlerCrashed,
    Parked,
    PayloadInvalid,
    RetryAfter,
    Snooze,
    Verdict,
)
from pgqueue.events import DutyFailed, emit
from pgqueue.job import Ended, NotStorable, Outcome, Requeued, State, storable_json
from pgqueue.tasks.running import RunningJob
from pgqueue.tasks.task import Task
from pgqueue.worker.processes import NotStarted
from pgqueue.worker.results import said_by
from pgqueue.worker.rollout import ROLLOUT_WAIT

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 16_000
"""Characters that are kept of an error; of a traceback the end, where the cause stands."""

CRASH_LIMIT = 3
"""Workers that died with this job as their only suspect before it is quarantined."""

LONGEST_WAIT = 100 * 366 * 86_400
"""Seconds that a handler may ask for: what the database can add to a time, and to spare."""

DATABASE_AWAY_WAIT = 1.0
"""Seconds before a job comes again whose connection broke under it."""

LOSSES_FORGIVEN = 5
"""Broken connections of one job that cost no try in this worker: a restart or a failover breaks one
or two, a statement that brings down its server breaks every one."""

JOBS_REMEMBERED = 10_000
"""Jobs whose broken connections are counted at the same time."""


class Endings:
    """Knows the app's hook for secrets, and whether a newer version is being rolled out."""

    def __init__(
        self, redact: Callable[[str], str], is_rollout: Callable[[], Awaitable[bool]]
    ) -> None:
        self._redact = redact
        self._is_rollout = is_rollout
        self._losses: dict[int, int] = {}

    def of_error(  # noqa: PLR0911 - one for each kind of error
        self,
        task: Task[Any],
        job: ClaimedJob,
        running: RunningJob,
        error: BaseException,
        *,
        timed_out: bool,
    ) -> Outcome:
        """The outcome of a try that raised."""
        # A handler that cancels its own task has failed: handed back, it would run for ever.
        told = running.cancelled and _is_being_cancelled()
        if told and isinstance(error, asyncio.CancelledError):
            return _of_cancelling(job, running)
        if isinstance(error, Verdict):
            return self._of_verdict(job, error)
        if parked := _parked(error):
            delay, waits = parked.seconds, parked.waits
            return Requeued(job.id, running.lease, delay, uncounted=1, waits=waits)
        if isinstance(error, NotStorable):
            return self.failed(job, "bad-result", error)
        if isinstance(error, NotStarted):
            return Requeued(job.id, running.lease, DATABASE_AWAY_WAIT, uncounted=1)
        if running.database_lost:
            return self._of_lost_connection(task, job, error)
        if timed_out and not error.args:  # asyncio's own error says nothing
            error.args = (f"not done within {job.timeout or task.options.timeout:g} s",)
        reason = "timeout" if timed_out else _reason_of(error)
        return self._after_failure(task, job, reason, error)

    def _of_lost_connection(
        self, task: Task[Any], job: ClaimedJob, error: BaseException
    ) -> Outcome:
        losses = self._losses.pop(job.id, 0) + 1
        if losses > LOSSES_FORGIVEN:
            return self._after_failure(task, job, "connection-lost", error)
        if len(self._losses) >= JOBS_REMEMBERED:
            self._losses.pop(next(iter(self._losses)))
        self._losses[job.id] = losses
        described = self._described(job, "connection-lost", error)
        return Requeued(job.id, job.lease, DATABASE_AWAY_WAIT, uncounted=1, error=described)

    async def of_invalid(self, job: ClaimedJob, error: PayloadInvalid) -> Outcome:
        if not await self._is_rollout():
            return self.failed(job, "payload-invalid", error)
        # A newer version may be on its way that can read it.
        described = self._described(job, "payload-invalid", error)
        return Requeued(job.id, job.lease, ROLLOUT_WAIT, uncounted=1, error=described)

    def failed(self, job: ClaimedJob, reason: str, error: BaseException) -> Ended:
        described = self._described(job, reason, error)
        return Ended(job.id, job.lease, State.FAILED, error=described)

    def _after_failure(
        self, task: Task[Any], job: ClaimedJob, reason: str, error: BaseException
    ) -> Outcome:
        if job.attempt >= job.max_attempts:
            return self.failed(job, reason, error)
        try:
            delay = wait_or_end(task.retry, job.attempt, error, random.random)
        except Exception as own:  # noqa: BLE001 - the app's `decide` may raise anything
            own.__context__ = error
            return self.failed(job, reason, own)
        if delay is None:
            return self.failed(job, reason, error)
        if not _is_wait(delay):
            wrong = ValueError(f"Retry waits {delay!r}: seconds, at most {LONGEST_WAIT:,}")
            wrong.__context__ = error
            return self.failed(job, reason, wrong)
        described = self._described(job, reason, error)
        return Requeued(job.id, job.lease, delay, error=described)

    def _of_verdict(self, job: ClaimedJob, verdict: Verdict) -> Outcome:
        lease = job.lease
        match verdict:
            case Snooze(seconds=seconds) | RetryAfter(seconds=seconds) if not _is_wait(seconds):
                wrong = ValueError(
                    f"{type(verdict).__name__}({seconds!r}): seconds, at most {LONGEST_WAIT:,}"
                )
                return self.failed(job, "exception", wrong)
            case Snooze(seconds=seconds):
                return Requeued(job.id, lease, max(0.0, seconds), uncounted=1)
            case RetryAfter(seconds=seconds) if job.attempt < job.max_attempts:
                error = self._described(job, "retry-after", verdict)
                return Requeued(job.id, lease, max(0.0, seconds), error=error)
            case Cancel():
                error = self._described(job, "cancelled", verdict)
                return Ended(job.id, lease, State.CANCELLED, error=error)
            case Fail():
                return self.failed(job, "fail", verdict)
            case _:
                return self.failed(job, "retry-after", verdict)

    def _described(self, job: ClaimedJob, reason: str, error: BaseException) -> str:
        entry = {
            "attempt": job.attempt,
            "reason": reason,
            "type": type(error).__qualname__,
            "message": self._safe(said_by(error))[:MESSAGE_LIMIT],
        }
        if not isinstance(error, Verdict | PayloadInvalid | NotStorable):
            lines = traceback.format_exception(error)
            entry["traceback"] = self._safe("".join(lines))[-TRACEBACK_LIMIT:]
        return storable_json(entry)

    def _safe(self, text: str) -> str:
        """Without secrets, by the app's hook, and without what Postgres cannot store."""
        try:
            return _storable(self._redact(text))
        except Exception as error:  # noqa: BLE001 - the app's hook may raise anything
            # Neither the text nor what the hook says of it: both may hold the secret.
            kind = type(error).__qualname__
            emit(DutyFailed("redact", f"the app's hook raised {kind}"))
            return f"<kept back: the hook that takes out secrets raised {kind}>"


def _parked(error: BaseException) -> Parked | None:
    """What says that the job sleeps or waits; out of a task group, too, where nothing else is."""
    if isinstance(error, BaseExceptionGroup):
        if not all(map(_parked, error.exceptions)):
            return None
        # Whichever time or event comes first, the others are looked at again then.
        found = [parked for one in error.exceptions if (parked := _parked(one))]
        waits = {name for parked in found for name in parked.waits}
        return Parked(min(parked.seconds for parked in found), tuple(waits))
    return error if isinstance(error, Parked) else None


def _reason_of(error: BaseException) -> str:
    return "crashed" if isinstance(error, HandlerCrashed) else "exception"


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _of_cancelling(job: ClaimedJob, running: RunningJob) -> Outcome:
    if not running.cancel_requested:
        return Requeued(job.id, running.lease, uncounted=1)
    return Ended(job.id, running.lease, State.CANCELLED, error=_note(job, "cancelled", "on demand"))


def unfit(job: ClaimedJob) -> Ended | None:
    """How a job ends that must not be started; decided here, where its task is known."""
    if job.crashes >= CRASH_LIMIT:
        message = f"{job.crashes} workers died while they ran this job and no other suspect"
        return Ended(job.id, job.lease, State.FAILED, error=_note(job, "crashed", message))
    if job.cancel_requested_at is not None:
        message = "on demand, before it ran again"
        error = _note(job, "cancelled", message)
        return Ended(job.id, job.lease, State.CANCELLED, error=error)
    if job.expires_at is not None and job.expires_at <= job.started_at:
        error = _note(job, "expired", "not started before expires_at")
        return Ended(job.id, job.lease, State.CANCELLED, error=error)
    return None


def _note(job: ClaimedJob, reason: str, message: str) -> str:
    return storable_json({"attempt": job.attempt, "reason": reason, "message": message})


def _is_wait(seconds: Any) -> bool:
    # Not math.isfinite: it raises for an int that is too large for a float.
    return isinstance(seconds, int | float) and -math.inf < seconds <= LONGEST_WAIT


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")

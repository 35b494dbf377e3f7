"""What operators do and see: retry, replay, cancel, delete, pause, why, lists. PgQueue has it all.

Each action writes its line of audit_log in its own transaction; `by` says who acts (without: the
operating system's user, from code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from pgqueue.db.run import Steps
from pgqueue.engine import delete, listing, queues, quota, retry_jobs, why
from pgqueue.engine.cancel import Cancelled, cancel_jobs
from pgqueue.engine.delete import Deleted
from pgqueue.engine.filters import JobFilter, checked_filter
from pgqueue.engine.notify import LISTENING_REST, ring
from pgqueue.engine.operate import Operator, acting, checked_reason
from pgqueue.engine.retry_jobs import Edit, Preview, Retried, merged
from pgqueue.engine.why import Cause
from pgqueue.errors import ConfigError, PayloadInvalid
from pgqueue.job import Json
from pgqueue.schedule.release import let_go
from pgqueue.settings import Settings
from pgqueue.tasks.names import checked_queue
from pgqueue.tasks.options import TENANT_LIMIT
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.values import checked_text

T = TypeVar("T")

ALL_JOBS = JobFilter()
LARGEST_ID = 2**63 - 1


class Operations(ABC):
    """The operator's part of PgQueue."""

    sql: Mapping[str, str]
    settings: Settings
    tasks: Registry

    @abstractmethod
    def _run(self, steps: Steps[T], connection: Any) -> T: ...

    @abstractmethod
    async def _arun(self, steps: Steps[T], connection: Any) -> T: ...

    # -- stop and delete -------------------------------------------------------

    def cancel(self, *job_ids: int, by: Operator | None = None) -> Cancelled:
        """Cancel jobs: waiting ones end at once, running ones within a second, by their worker."""
        return self._run(cancel_jobs(self.sql, checked_ids(job_ids), acting(by)), None)

    async def acancel(self, *job_ids: int, by: Operator | None = None) -> Cancelled:
        """`cancel` for async code."""
        steps = cancel_jobs(self.sql, checked_ids(job_ids), acting(by))
        return await self._arun(steps, None)

    def delete(self, *job_ids: int, by: Operator | None = None) -> Deleted:
        """Delete jobs, live and finished, with their logs; running ones are refused."""
        return self._run(delete.delete_jobs(self.sql, checked_ids(job_ids), acting(by)), None)

    async def adelete(self, *job_ids: int, by: Operator | None = None) -> Deleted:
        """`delete` for async code."""
        steps = delete.delete_jobs(self.sql, checked_ids(job_ids), acting(by))
        return await self._arun(steps, None)

    # -- run again -------------------------------------------------------------

    def retry(self, *job_ids: int, from_start: bool = False, by: Operator | None = None) -> Retried:
        """Run failed and cancelled jobs again, under their ids, and those that wait for a time now.

        Durable steps that are done stay done, unless `from_start`.

        They get as many tries as their task's policy gives, at least one. Doing it twice is doing
        it once. A job whose unique key is taken is refused, the others go on; a completed one is
        refused, too: see `replay`.
        """
        return self._run(self._retry(job_ids, by, from_start=from_start), None)

    async def aretry(
        self, *job_ids: int, from_start: bool = False, by: Operator | None = None
    ) -> Retried:
        """`retry` for async code."""
        return await self._arun(self._retry(job_ids, by, from_start=from_start), None)

    def preview_retry(self, wanted: JobFilter, *, limit: int | None = None) -> Preview:
        """How many jobs `retry_many` would take, and the newest of them; changes nothing."""
        return self._run(self._preview_retry(wanted, limit), None)

    async def apreview_retry(self, wanted: JobFilter, *, limit: int | None = None) -> Preview:
        """`preview_retry` for async code."""
        return await self._arun(self._preview_retry(wanted, limit), None)

    def retry_many(
        self,
        wanted: JobFilter,
        *,
        limit: int | None = None,
        from_start: bool = False,
        by: Operator | None = None,
    ) -> Retried:
        """Retry the failed and cancelled jobs that fit, oldest first, at most `limit`.

        In transactions of at most 500 jobs. Raises ConfigError for a filter that asks for others.
        """
        return self._run(self._retry_many(wanted, limit, by, from_start=from_start), None)

    async def aretry_many(
        self,
        wanted: JobFilter,
        *,
        limit: int | None = None,
        from_start: bool = False,
        by: Operator | None = None,
    ) -> Retried:
        """`retry_many` for async code."""
        return await self._arun(self._retry_many(wanted, limit, by, from_start=from_start), None)

    def replay(
        self,
        job_id: int,
        payload: Mapping[str, Json] | None = None,
        *,
        merge: Mapping[str, Json] | None = None,
        by: Operator | None = None,
    ) -> None:
        """Run a finished job again, completed or not, under its id; a result it had is dropped.

        With `payload` it gets another one, with `merge` the old one with changes (JSON merge patch,
        RFC 7396: null removes); either must fit the task. Raises JobNotFound, WrongState for a live
        job, TaskUnknown, PayloadInvalid and UniqueKeyTaken.
        """
        self._run(self._replay(job_id, payload, merge, by), None)

    async def areplay(
        self,
        job_id: int,
        payload: Mapping[str, Json] | None = None,
        *,
        merge: Mapping[str, Json] | None = None,
        by: Operator | None = None,
    ) -> None:
        """`replay` for async code."""
        await self._arun(self._replay(job_id, payload, merge, by), None)

    def preview_replay(self, wanted: JobFilter, *, limit: int | None = None) -> Preview:
        """How many jobs `replay_many` would take, and the newest of them; changes nothing."""
        return self._run(self._preview_replay(wanted, limit), None)

    async def apreview_replay(self, wanted: JobFilter, *, limit: int | None = None) -> Preview:
        """`preview_replay` for async code."""
        return await self._arun(self._preview_replay(wanted, limit), None)

    def replay_many(
        self,
        wanted: JobFilter,
        *,
        merge: Mapping[str, Json] | None = None,
        limit: int | None = None,
        by: Operator | None = None,
    ) -> Retried:
        """Replay the finished jobs that fit, `merge` being the changes to each payload.

        Completed ones only if `wanted.states` names them. A job whose new payload does not fit its
        task is refused, and the others go on.
        """
        return self._run(self._replay_many(wanted, merge, limit, by), None)

    async def areplay_many(
        self,
        wanted: JobFilter,
        *,
        merge: Mapping[str, Json] | None = None,
        limit: int | None = None,
        by: Operator | None = None,
    ) -> Retried:
        """`replay_many` for async code."""
        return await self._arun(self._replay_many(wanted, merge, limit, by), None)

    # -- queues ----------------------------------------------------------------

    def pause(self, queue: str, *, reason: str | None = None, by: Operator | None = None) -> bool:
        """Let no worker take from the queue, used or not; False when it was paused already."""
        return self._run(self._pause(queue, reason, by), None)

    async def apause(
        self, queue: str, *, reason: str | None = None, by: Operator | None = None
    ) -> bool:
        """`pause` for async code."""
        return await self._arun(self._pause(queue, reason, by), None)

    def resume(self, queue: str, *, by: Operator | None = None) -> bool:
        """Let workers take from the queue again; False when it was not paused."""
        return self._run(self._resume(queue, by), None)

    async def aresume(self, queue: str, *, by: Operator | None = None) -> bool:
        """`resume` for async code."""
        return await self._arun(self._resume(queue, by), None)

    # -- quotas ----------------------------------------------------------------

    def set_quota(
        self, tenant: str, max_waiting: int | None, *, by: Operator | None = None
    ) -> None:
        """Let at most `max_waiting` jobs of a tenant wait; '*' is every tenant without its own.

        None takes the quota away. Approximate: concurrent enqueuers may overshoot by their number.
        """
        self._run(self._set_quota(tenant, max_waiting, by), None)

    async def aset_quota(
        self, tenant: str, max_waiting: int | None, *, by: Operator | None = None
    ) -> None:
        """`set_quota` for async code."""
        await self._arun(self._set_quota(tenant, max_waiting, by), None)

    # -- see -------------------------------------------------------------------

    def why(self, job_id: int) -> list[Cause]:
        """Why a job does not run: causes in order, at least one; `ready` when nothing is wrong."""
        return self._run(self._why(job_id), None)

    async def awhy(self, job_id: int) -> list[Cause]:
        """`why` for async code."""
        return await self._arun(self._why(job_id), None)

    def list_jobs(
        self, wanted: JobFilter = ALL_JOBS, *, limit: int = 100, before: int | None = None
    ) -> list[dict[str, Any]]:
        """Jobs that fit, newest first, as mappings with the SQL column names.

        `before` is the last id of the page before.
        """
        return self._run(self._list_jobs(wanted, limit, before), None)

    async def alist_jobs(
        self, wanted: JobFilter = ALL_JOBS, *, limit: int = 100, before: int | None = None
    ) -> list[dict[str, Any]]:
        """`list_jobs` for async code."""
        return await self._arun(self._list_jobs(wanted, limit, before), None)

    def show_job(self, job_id: int) -> dict[str, Any]:
        """A job with all SQL columns, its `timeline` and its `logs`; raises JobNotFound."""
        return self._run(listing.show_job(self.sql, checked_id(job_id)), None)

    async def ashow_job(self, job_id: int) -> dict[str, Any]:
        """`show_job` for async code."""
        return await self._arun(listing.show_job(self.sql, checked_id(job_id)), None)

    def list_queues(self) -> list[dict[str, Any]]:
        """The rows of the view queue_stats."""
        return self._run(listing.list_queues(self.sql), None)

    async def alist_queues(self) -> list[dict[str, Any]]:
        """`list_queues` for async code."""
        return await self._arun(listing.list_queues(self.sql), None)

    def stats(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the views: `queues`, `tasks` (last 24 hours), `workers`, `schedules`."""
        return self._run(listing.stats(self.sql), None)

    async def astats(self) -> dict[str, list[dict[str, Any]]]:
        """`stats` for async code."""
        return await self._arun(listing.stats(self.sql), None)

    # -- the steps both ways share ---------------------------------------------

    def _tries(self) -> dict[str, int]:
        return {task.name: task.retry.attempts for task in self.tasks}

    def _rung(self, steps: Steps[T]) -> Steps[T]:
        """`steps`, and then a hint to the workers that there is work."""
        result = yield from steps
        yield from ring(self.sql, self.settings.channel, "")
        return result

    def _back_in_turn(self, steps: Steps[T]) -> Steps[T]:
        """`steps`, which bring jobs back; those of windows go on where no other one runs."""
        result = yield from steps
        yield from let_go(self.sql)
        return result

    def _retry(
        self, job_ids: tuple[int, ...], by: Operator | None, *, from_start: bool
    ) -> Steps[Retried]:
        ids = checked_ids(job_ids)
        steps = retry_jobs.retry_jobs(
            self.sql, ids, acting(by), self._tries(), from_start=from_start
        )
        return self._rung(self._back_in_turn(steps))

    def _preview_retry(self, wanted: JobFilter, limit: int | None) -> Steps[Preview]:
        return retry_jobs.preview_retry(self.sql, checked_filter(wanted), checked_limit(limit))

    def _retry_many(
        self, wanted: JobFilter, limit: int | None, by: Operator | None, *, from_start: bool
    ) -> Steps[Retried]:
        fit, most = checked_filter(wanted), checked_limit(limit)
        steps = retry_jobs.retry_matching(
            self.sql, fit, acting(by), self._tries(), most, from_start=from_start
        )
        return self._rung(self._back_in_turn(steps))

    def _replay(
        self,
        job_id: int,
        payload: Mapping[str, Json] | None,
        merge: Mapping[str, Json] | None,
        by: Operator | None,
    ) -> Steps[None]:
        if payload is not None and merge is not None:
            raise ConfigError("payload and merge exclude each other: give one of them")
        edit = self._edit(payload, merge)
        operator = acting(by)
        steps = retry_jobs.replay_job(self.sql, checked_id(job_id), edit, operator, self._tries())
        return self._rung(self._back_in_turn(steps))

    def _preview_replay(self, wanted: JobFilter, limit: int | None) -> Steps[Preview]:
        fit, most = checked_filter(wanted), checked_limit(limit)
        return retry_jobs.preview_retry(self.sql, fit, most, allowed=retry_jobs.FINISHED)

    def _replay_many(
        self,
        wanted: JobFilter,
        merge: Mapping[str, Json] | None,
        limit: int | None,
        by: Operator | None,
    ) -> Steps[Retried]:
        steps = retry_jobs.replay_matching(
            self.sql,
            checked_filter(wanted),
            self._edit(None, merge),
            acting(by),
            tries=self._tries(),
            limit=checked_limit(limit),
        )
        return self._rung(self._back_in_turn(steps))

    def _edit(self, payload: Mapping[str, Json] | None, merge: Mapping[str, Json] | None) -> Edit:
        def edit(task: str, old: Mapping[str, Json]) -> Mapping[str, Json]:
            if payload is None and merge is None:
                return old
            new = merged(old, merge) if payload is None else payload
            if not isinstance(new, Mapping) or not all(isinstance(name, str) for name in new):
                raise PayloadInvalid(task, [("payload", "must be a JSON object")])
            return self.tasks.get(task).signature.payload_of_json(new)

        return edit

    def _pause(self, queue: str, reason: str | None, by: Operator | None) -> Steps[bool]:
        why = checked_reason(reason)
        return queues.pause_queue(self.sql, checked_queue(queue), acting(by), why)

    def _resume(self, queue: str, by: Operator | None) -> Steps[bool]:
        steps = queues.resume_queue(self.sql, checked_queue(queue), acting(by))
        return self._rung(steps)

    def _set_quota(self, tenant: str, max_waiting: int | None, by: Operator | None) -> Steps[None]:
        named = checked_text("tenant", "" if tenant is None else tenant, TENANT_LIMIT) or ""
        return quota.set_quota(self.sql, named, max_waiting, acting(by))

    def _why(self, job_id: int) -> Steps[list[Cause]]:
        return why.why(
            self.sql,
            checked_id(job_id),
            timeout=self.settings.heartbeat_timeout,
            poll_interval=max(
                self.settings.poll_interval, LISTENING_REST if self.settings.notify else 0.0
            ),
        )

    def _list_jobs(
        self, wanted: JobFilter, limit: int, before: int | None
    ) -> Steps[list[dict[str, Any]]]:
        most = checked_limit(limit) or 0
        after = None if before is None else checked_id(before)
        return listing.list_jobs(self.sql, checked_filter(wanted), limit=most, before=after)


def checked_id(job_id: int) -> int:
    """The id as it is; raises ConfigError for what cannot be one."""
    if isinstance(job_id, bool) or not isinstance(job_id, int) or not 0 < job_id <= LARGEST_ID:
        raise ConfigError(f"job id {job_id!r} is not valid: a whole number from 1")
    return job_id


def checked_ids(job_ids: tuple[int, ...]) -> tuple[int, ...]:
    """The ids as they are; raises ConfigError for what cannot be one."""
    return tuple(checked_id(job_id) for job_id in job_ids)


def checked_limit(limit: int | None) -> int | None:
    """The limit as it is; raises ConfigError for one below 1."""
    if limit is not None and (type(limit) is not int or not 0 < limit <= LARGEST_ID):
        raise ConfigError(f"limit {limit!r} is not valid: 1 or more")
    return limit

"""PgQueue: what users hold, and the one place where the rooms are put together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

import psycopg
from psycopg.rows import TupleRow

from pgqueue import embedded
from pgqueue.db.borrowed import aborrowed, borrowed, commits_itself
from pgqueue.db.pools import Pools
from pgqueue.db.run import Steps, arun, run
from pgqueue.db.version import check_version
from pgqueue.engine import enqueue, inspect
from pgqueue.engine.notify import EVENTS, Bell, ring
from pgqueue.engine.result import polls, value_of
from pgqueue.engine.steps import emit_event
from pgqueue.errors import ConfigError, NotMigrated
from pgqueue.job import Job, Json, NewJob, NewJobs, NotStorable, Retry, with_results
from pgqueue.limiting import Limiting
from pgqueue.maintenance import Maintenance
from pgqueue.operations import Operations, checked_id
from pgqueue.schedule.store import Schedule
from pgqueue.scheduling import Scheduling
from pgqueue.settings import Settings, read_settings
from pgqueue.sql import load
from pgqueue.tasks.limits import Limit, Order, task_limits
from pgqueue.tasks.names import checked_event, checked_queue, task_name_of
from pgqueue.tasks.options import TASK_OPTIONS, GivenOptions, Options, changed
from pgqueue.tasks.registry import Registry
from pgqueue.tasks.stepping import checked_key
from pgqueue.tasks.task import Task
from pgqueue.version import __version__
from pgqueue.worker.declared import declare_limits
from pgqueue.worker.options import WorkerOptions
from pgqueue.worker.results import json_of
from pgqueue.worker.service import Worker
from pgqueue.workflows import Workflows

# The second where a statement begins with a function of ours.
_NO_TABLES = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)

T = TypeVar("T")
R = TypeVar("R")
Payload = Mapping[str, Json] | None


def _as_it_is(text: str) -> str:
    return text


class PgQueue(Operations, Maintenance, Scheduling, Workflows, Limiting):
    """An app: its settings, its tasks and its way to the database.

    Reads the environment when constructed and connects at first use. Safe to share between
    threads and event loops. Raises ConfigError for settings that are not valid. `redact` is given
    each error message and traceback before it is stored with a job; it returns it without secrets.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        schema: str | None = None,
        embedded_dir: Path | None = None,
        redact: Callable[[str], str] = _as_it_is,
    ) -> None:
        self.settings: Settings = read_settings(
            database_url=database_url, schema_name=schema, embedded_dir=embedded_dir
        )
        self.redact = redact
        self.tasks = Registry()
        self.schedules: dict[str, Schedule] = {}
        self.pools = Pools(self.conninfo, self._greet)
        self.sql: Mapping[str, str] = load("pgqueue.sql", self.settings.schema_name)
        self._bell = Bell(self.sql, self.settings.channel)
        self._embedded: embedded.EmbeddedServer | None = None
        self._lock = threading.Lock()
        self._has_declared = False

    # -- tasks ---------------------------------------------------------------

    @overload
    def task(self, function: Callable[..., R], /) -> Task[R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        isolation: str | None = None,
        memory_limit: int | None = None,
        batch: int | None = None,
        max_wait: float | None = None,
        limits: Sequence[Limit] = (),
        ordered_by: str | Order | None = None,
        **options: Unpack[GivenOptions],
    ) -> Callable[[Callable[..., R]], Task[R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        isolation: str | None = None,
        memory_limit: int | None = None,
        batch: int | None = None,
        max_wait: float | None = None,
        limits: Sequence[Limit] = (),
        ordered_by: str | Order | None = None,
        **options: Unpack[GivenOptions],
    ) -> Any:
        """Register a function, sync or async, as a task.

        Its name is the function's with dashes, unless given. Without `retry` a job is tried once;
        a crash of the worker is no try. `options` are those of `Task.using`: queue, priority,
        timeout, tags, … With `batch` the function takes a list, of payloads or of jobs, and is
        called for up to so many at once, which wait for each other `max_wait` seconds at most.
        A sync function runs in a thread, or with `isolation="process"` in a
        child process of its own, which is killed on timeout and cancel and may use at most
        `memory_limit` bytes of address space (Linux). Its jobs run as `limits` let them, across the
        whole fleet; those with one key of `ordered_by` ("customer:{customer_id}") run one after
        another. Raises ConfigError for options that are not valid and for a name that is taken.
        """

        if not isinstance(retry, Retry | None):
            raise ConfigError(f"retry {retry!r} is not valid: use Retry(attempts=…)")

        def register(handler: Callable[..., Any]) -> Task[Any]:
            if not callable(handler) or not hasattr(handler, "__name__"):
                raise ConfigError(f"{handler!r} cannot be a task: use a function")
            task: Task[Any] = Task(
                handler,
                name=name or task_name_of(handler.__name__),
                sender=self,
                options=changed(Options(), options, TASK_OPTIONS),
                retry=retry or Retry(),
                isolation=isolation,
                memory_limit=memory_limit,
                batch=batch,
                max_wait=max_wait,
                limits=task_limits(name or task_name_of(handler.__name__), limits, ordered_by),
            )
            self.tasks.add(task)
            self._has_declared = False
            return task

        return register if function is None else register(function)

    # -- jobs ----------------------------------------------------------------

    def enqueue(self, task: str, payload: Payload = None, **options: Unpack[GivenOptions]) -> Job:
        """Insert a job of the task with this name; raises TaskUnknown, PayloadInvalid.

        The payload may be JSON, with times and the like as text, or hold Python's values.
        """
        named = self.tasks.using(task, options)
        return named.enqueue_json({} if payload is None else payload)

    async def aenqueue(
        self, task: str, payload: Payload = None, **options: Unpack[GivenOptions]
    ) -> Job:
        """`enqueue` for async code."""
        named = self.tasks.using(task, options)
        return await named.aenqueue_json({} if payload is None else payload)

    def emit(
        self, event: str, key: str | int, payload: Json = None, *, connection: Any = None
    ) -> int:
        """Say that something has happened: jobs in `job.wait_for(event, key)` go on with `payload`.

        It counts for every job that was created before, also for one that comes to wait later.
        With a `connection`, as in `using`, it is part of the caller's transaction. The payload is
        JSON, 1 MB at most. Returns the event's id; raises ConfigError for what is not valid.
        """
        given = None if connection is None else borrowed(connection)
        is_alone = given is None or commits_itself(given)
        return self._run(self._emitting(event, key, payload, is_alone=is_alone), given)

    async def aemit(
        self, event: str, key: str | int, payload: Json = None, *, connection: Any = None
    ) -> int:
        """`emit` for async code."""
        given = None if connection is None else await aborrowed(connection)
        is_alone = given is None or commits_itself(given)
        return await self._arun(self._emitting(event, key, payload, is_alone=is_alone), given)

    def _emitting(self, event: str, key: str | int, payload: Json, *, is_alone: bool) -> Steps[int]:
        name, known = checked_event(event), checked_key(key)
        try:
            text = json_of(payload)
        except NotStorable as error:
            raise ConfigError(f"payload of event {event!r} cannot be stored: {error}") from None
        channel = self.settings.channel
        notify = channel is not None and not is_alone
        event_id = yield from emit_event(self.sql, name, known, text, notify=notify)
        if is_alone:
            yield from ring(self.sql, channel, EVENTS)
        return event_id

    def get_job(self, job_id: int) -> Job:
        """A job by id, live or finished; raises JobNotFound."""
        return self._known(self._run(inspect.get_job(self.sql, checked_id(job_id)), None))

    async def aget_job(self, job_id: int) -> Job:
        """`get_job` for async code."""
        steps = inspect.get_job(self.sql, checked_id(job_id))
        return self._known(await self._arun(steps, None))

    def result(self, job: Job, timeout: float | None = None) -> Json:
        """What `job.result` does."""
        waits = polls(job, timeout)
        while (ending := self._run(inspect.find_ending(self.sql, job), None)) is None:
            time.sleep(next(waits))
        return value_of(job, ending)

    async def aresult(self, job: Job, timeout: float | None = None) -> Json:  # noqa: ASYNC109 - name
        """What `job.aresult` does."""
        waits = polls(job, timeout)
        while True:
            ending = await self._arun(inspect.find_ending(self.sql, job), None)
            if ending is not None:
                return value_of(job, ending)
            await asyncio.sleep(next(waits))

    def _known(self, job: Job) -> Job:
        return with_results(job, self)

    # -- work ----------------------------------------------------------------

    def worker(
        self,
        *,
        queues: Sequence[str] = (),
        concurrency: int | None = None,
        shutdown_timeout: float | None = None,
        burst: bool = False,
        scheduler: bool = True,
        health_host: str = "127.0.0.1",
        health_port: int | None = None,
    ) -> Worker:
        """A worker of this app's tasks; `await worker.run()` works until told to stop.

        Without `queues` it takes from all. In `burst` mode it ends when nothing is left that is
        due. With `scheduler` it ticks, too. With a `health_port` (0: any free one) it answers
        `/healthz` and `/readyz` there.
        """
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise ConfigError(f"concurrency {concurrency!r} is not valid: 1 or more")
        if isinstance(queues, str):
            raise ConfigError(f"queues {queues!r} is not valid: a list of queue names")
        options = WorkerOptions(
            queues=tuple(checked_queue(queue) for queue in queues),
            concurrency=concurrency,
            shutdown_timeout=shutdown_timeout,
            burst=burst,
            version=__version__,
            health_host=health_host,
            health_port=self.settings.health_port if health_port is None else health_port,
        )
        return Worker(
            tasks=self.tasks,
            settings=self.settings,
            pools=self.pools,
            sql=self.sql,
            conninfo=self.conninfo,
            redact=self.redact,
            schedules=tuple(self.schedules.values()),
            ticks=scheduler,
            options=options,
        )

    # -- connections ---------------------------------------------------------

    def conninfo(self) -> str:
        """The database as a libpq string.

        Where no URL is set the embedded server is started, and started again if it died.
        """
        if self.settings.database_url is not None:
            return self.settings.database_url
        with self._lock:
            if self._embedded is None:
                self._embedded = embedded.start(self.settings.embedded_dir)
            self._embedded.ensure_running()
            return self._embedded.url

    def _greet(self, connection: psycopg.Connection[TupleRow]) -> None:
        check_version(connection, self.settings.schema_name)

    def connection(self) -> AbstractContextManager[psycopg.Connection[TupleRow]]:
        """A pooled psycopg connection in autocommit."""
        return self.pools.lend()

    def aconnection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[TupleRow]]:
        """A pooled async psycopg connection in autocommit."""
        return self.pools.alend()

    def close(self) -> None:
        """Close the connections and leave the embedded server; both come back when needed."""
        self.pools.close()
        with self._lock:
            server, self._embedded = self._embedded, None
        if server is not None:
            server.close()

    # -- Sender: how tasks bring jobs into the database ------------------------

    def _declare(self) -> None:
        """Before the first job with limits: its rules are in the database before it is."""
        self._run(declare_limits(self.sql, self.tasks), None)
        self._has_declared = True

    async def _adeclare(self) -> None:
        await self._arun(declare_limits(self.sql, self.tasks), None)
        self._has_declared = True

    def send(self, new: NewJob, connection: Any) -> Job:
        if new.limits and not self._has_declared:
            self._declare()
        given = None if connection is None else borrowed(connection)
        is_alone = given is None or commits_itself(given)
        return self._known(self._run(self._enqueuing(new, is_alone=is_alone), given))

    def send_many(self, new: NewJobs, connection: Any) -> list[int]:
        if new.like.limits and not self._has_declared:
            self._declare()
        given = None if connection is None else borrowed(connection)
        is_alone = given is None or commits_itself(given)
        if given is not None:
            # Its transaction must outlive a bad payload, and a validator may use it, too.
            new = new.at_hand()
        return self._run(self._enqueuing_many(new, is_alone=is_alone), given)

    async def asend(self, new: NewJob, connection: Any) -> Job:
        if new.limits and not self._has_declared:
            await self._adeclare()
        given = None if connection is None else await aborrowed(connection)
        is_alone = given is None or commits_itself(given)
        return self._known(await self._arun(self._enqueuing(new, is_alone=is_alone), given))

    async def asend_many(self, new: NewJobs, connection: Any) -> list[int]:
        if new.like.limits and not self._has_declared:
            await self._adeclare()
        given = None if connection is None else await aborrowed(connection)
        is_alone = given is None or commits_itself(given)
        if given is not None:
            new = new.at_hand()
        return await self._arun(self._enqueuing_many(new, is_alone=is_alone), given)

    def _enqueuing(self, new: NewJob, *, is_alone: bool) -> Steps[Job]:
        if is_alone:
            return self._bell.after(enqueue.enqueue_job(self.sql, new), new)
        steps = enqueue.enqueue_job(self.sql, new, self._bell.within(new))
        return self._bell.checked(steps, new, 1)

    def _enqueuing_many(self, new: NewJobs, *, is_alone: bool) -> Steps[list[int]]:
        like = new.like
        if is_alone:
            steps = enqueue.enqueue_alike(self.sql, new, is_alone=True)
            return self._bell.after(steps, like, new.count)
        steps = enqueue.enqueue_alike(self.sql, new, self._bell.within(like))
        return self._bell.checked(steps, like, new.count)

    def _run(self, steps: Steps[T], connection: Any) -> T:
        try:
            if connection is not None:
                return run(borrowed(connection), steps)
            return self.pools.run(steps)
        except _NO_TABLES:
            raise NotMigrated(self.settings.schema_name) from None

    async def _arun(self, steps: Steps[T], connection: Any) -> T:
        try:
            if connection is not None:
                return await arun(await aborrowed(connection), steps)
            return await self.pools.arun(steps)
        except _NO_TABLES:
            raise NotMigrated(self.settings.schema_name) from None

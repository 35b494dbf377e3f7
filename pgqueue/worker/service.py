"""A worker process, put together: start, run until told to stop, hand back, leave."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from pgqueue.db.pools import Pools, connect
from pgqueue.db.run import Steps, run
from pgqueue.db.version import check_version
from pgqueue.engine.notify import SCHEDULES, ring
from pgqueue.engine.rescue import forget_worker, register_worker
from pgqueue.events import WorkerFenced, WorkerStarted, WorkerStopped, WorkerStopping, emit
from pgqueue.schedule.store import Schedule, put_declared
from pgqueue.settings import Settings, described_target
from pgqueue.tasks.isolation import refuse_in_a_child_that_starts
from pgqueue.tasks.registry import Registry
from pgqueue.worker.admission import Admission
from pgqueue.worker.chores import HOLD, Chores, worker_chores
from pgqueue.worker.conveyor import Conveyor
from pgqueue.worker.declared import declare_limits
from pgqueue.worker.duties import worker_duties
from pgqueue.worker.health import HealthServer
from pgqueue.worker.heart import GAP_BEATS, Heart
from pgqueue.worker.link import Link, LinkDown
from pgqueue.worker.listener import Listener
from pgqueue.worker.options import WorkerOptions
from pgqueue.worker.shutdown import StopSign, leave_at_second_signal
from pgqueue.worker.statistics import tell_unknown_tasks
from pgqueue.worker.ticker import Ticker
from pgqueue.worker.upkeep import Duty, Upkeep
from pgqueue.worker.waiting import ended

WATCH_EVERY = 0.5
CANCEL_GRACE = 5.0
"""Seconds that cancelled handlers get to wind up before the process leaves without them."""


class Worker:
    """One worker: `await run()` in an event loop of its own or with others."""

    def __init__(
        self,
        *,
        tasks: Registry,
        settings: Settings,
        pools: Pools,
        sql: Mapping[str, str],
        conninfo: Callable[[], str],
        redact: Callable[[str], str],
        schedules: Sequence[Schedule],
        ticks: bool,
        options: WorkerOptions,
    ) -> None:
        self._tasks = tasks
        self._settings = settings
        self._sql = sql
        self._conninfo = conninfo
        self._options = options
        self._schedules = schedules
        self._ticks = ticks
        self._concurrency = options.concurrency or settings.concurrency
        self._id = 0
        self._pools = pools
        self._listener = self._new_listener()
        self._conveyor = Conveyor(
            tasks=tasks,
            settings=settings,
            pools=pools,
            sql=sql,
            conninfo=conninfo,
            redact=redact,
            queues=options.queues,
            concurrency=self._concurrency,
            worker_id=self.worker_id,
            listener=self._listener,
            hurry=self._hurry,
            lowest=lambda: self._admission.place.lowest,
            on_blocked=lambda wait: self._upkeep.within("admission", wait),
        )
        self._hand = self._conveyor.hand
        self._hand.on_freed = lambda: self._hurry("admission")
        self._hand.on_window_ended = lambda: self._hurry("windows")
        self._hand.on_workflow_told = lambda: self._hurry("workflows")
        self._claims = self._conveyor.claims
        self._upkeep_link = Link("upkeep", conninfo)
        self._health: HealthServer | None = None
        self._admission = self._new_admission()
        self._ticker = Ticker(sql, self._upkeep_link, settings, self._listener, self._claims.wake)
        self._loop_seen = time.monotonic()
        self._stop_sign = StopSign(self._begin_to_stop)
        self.take_signals = leave_at_second_signal
        self.tells_unknown_tasks = True

    def _new_listener(self) -> Listener:
        return Listener(
            self._settings.channel,
            self._options.queues,
            # Made later.
            wake=lambda queue: self._claims.wake(queue),  # noqa: PLW0108
            wake_scheduler=lambda: self._hurry("tick"),
            wake_deliveries=lambda: self._hurry("events"),
        )

    def _new_admission(self) -> Admission:
        return Admission(
            self._sql,
            self._upkeep_link,
            self._settings,
            self._hand,
            queues=self._options.queues,
            has_room=self._claims.has_room,
            let_in=self._claims.let_in,
        )

    @property
    def has_lingering_handlers(self) -> bool:
        """Whether handlers run on that did not heed their end; only the process's end ends them."""
        return bool(self._conveyor.runner.lingering) or self._conveyor.slots.is_busy

    # -- life ------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop`, a signal, or in burst mode until nothing is left.

        Raises DatabaseUnreachable, NotMigrated, SchemaTooNew or ConfigError before it starts;
        after that it reconnects for ever.
        """
        self._event_loop = asyncio.get_running_loop()
        self._stop_sign.belongs_here()
        self._check_tasks()
        self._pools.serve(self._concurrency)
        if self._options.health_port is not None:
            self._health = HealthServer(self, self._options.health_host, self._options.health_port)
        # Before our row is there: whoever sees it may send a signal.
        undo_signals = self.take_signals(self.stop)
        try:
            await asyncio.to_thread(self._enter)
            await self._live()
        finally:
            undo_signals()
            if self._health is not None:
                self._health.stop()

    async def _live(self) -> None:
        self._heart = Heart(
            self,
            self._sql,
            self._conninfo,
            interval=self._settings.beat_every,
            timeout=self._settings.heartbeat_timeout,
        )
        self._chores = self._new_chores()
        self._upkeep = Upkeep(self._duties(), self._upkeep_link.connected)
        self._heart.start()
        if self._health is not None:
            self._health.start()
        self._announce()
        try:
            await self._work()
        finally:
            await self._leave()

    def stop(self, reason: str = "asked to") -> None:
        """Stop claiming, let handlers end in time, hand back the rest; from any thread."""
        self._stop_sign.raise_(reason)

    def _begin_to_stop(self) -> None:
        self._conveyor.processes.stopping = True
        emit(WorkerStopping(self._id, self._stop_sign.reason, len(self._hand.running)))
        self._claims.stop_claiming()

    async def _work(self) -> None:
        upkeep = asyncio.create_task(self._upkeep.run(), name="upkeep")
        background = [asyncio.create_task(self._watch_loop(), name="loop-watch")]
        background.append(asyncio.create_task(self._conveyor.writer.run(), name="writer"))
        if self._options.burst:
            background.append(asyncio.create_task(self._stop_when_idle(), name="burst"))
        claims = asyncio.create_task(self._claims.run(), name="claims")
        try:
            await self._until_done(claims)
        except asyncio.CancelledError:
            # Whoever runs us wants an end now: no patience with handlers.
            self.stop("cancelled")
            raise
        finally:
            try:
                await self._wind_up(claims, upkeep)
            finally:
                await ended([claims, upkeep, *background], CANCEL_GRACE)
        if not claims.cancelled() and (error := claims.exception()) is not None:
            raise error

    async def _until_done(self, claims: asyncio.Task[None]) -> None:
        await self._stop_sign.until_raised(claims)
        patience = self._options.shutdown_timeout
        if patience is None:
            patience = self._settings.shutdown_timeout
        await asyncio.wait([claims], timeout=patience)

    async def _wind_up(self, claims: asyncio.Task[None], upkeep: asyncio.Task[None]) -> None:
        if not claims.done():
            self._claims.cancel_running()
            await asyncio.wait([claims], timeout=CANCEL_GRACE)
        self._upkeep.stop()
        await asyncio.wait([upkeep], timeout=CANCEL_GRACE)
        if not upkeep.done():
            await self._upkeep_link.close()
        await self._chores.close()

    async def _stop_when_idle(self) -> None:
        link = Link("windows", self._conninfo)
        try:
            await self._ticker.until_idle(self._claims, link, ticks=self._ticks)
            while await self._admission.brings(link, self._claims.took_at):
                self._claims.idle.clear()
                self._claims.wake()
                await self._ticker.until_idle(self._claims, link, ticks=self._ticks)
        finally:
            await link.close()
        self.stop("nothing left to do")

    async def _watch_loop(self) -> None:
        while True:
            self._loop_seen = time.monotonic()
            self._heart.check()
            await asyncio.sleep(WATCH_EVERY)

    # -- coming and going --------------------------------------------------------

    def _check_tasks(self) -> None:
        refuse_in_a_child_that_starts()
        for task in self._tasks:
            _ = task.signature  # raises ConfigError now, not at the first job
            if task.isolation == "process":
                self._conveyor.processes.check(task)

    def _enter(self) -> None:
        with connect(self._conninfo()) as connection:
            check_version(connection, self._settings.schema_name)
            run(connection, put_declared(self._sql, self._schedules, self._tasks.names()))
            if self._schedules:
                run(connection, ring(self._sql, self._settings.channel, SCHEDULES))
            run(connection, declare_limits(self._sql, self._tasks))
            self._id = run(connection, self._registration())
            if self.tells_unknown_tasks and not self._options.burst:
                run(connection, tell_unknown_tasks(self._sql, self._id, self._options.queues))

    def _registration(self) -> Steps[int]:
        return register_worker(
            self._sql,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._options.version,
            queues=self._options.queues,
            concurrency=self._concurrency,
            tasks=self._tasks.names(),
        )

    def _announce(self) -> None:
        emit(
            WorkerStarted(
                worker_id=self._id,
                queues=self._options.queues or ("*",),
                concurrency=self._concurrency,
                tasks=tuple(self._tasks.names()),
                database=described_target(self._conninfo()),
                health=self._health.url if self._health else None,
            )
        )

    async def _leave(self) -> None:
        await asyncio.to_thread(self._heart.stop)
        await self._conveyor.close()
        # Where the database is away, others forget this worker when its heartbeat is old.
        with suppress(TimeoutError, LinkDown):
            async with asyncio.timeout(CANCEL_GRACE):
                if self.tells_unknown_tasks and self._options.burst:
                    told = tell_unknown_tasks(self._sql, self._id, self._options.queues)
                    await self._upkeep_link.execute(told)
                await self._upkeep_link.execute(forget_worker(self._sql, self._id))
                if self._hand.tally.handed_back:
                    await self._upkeep_link.execute(ring(self._sql, self._settings.channel, ""))
        await self._upkeep_link.close()
        await self._pools.aclose()
        done = self._hand.tally
        emit(WorkerStopped(self._id, done.completed, done.failed, done.handed_back))

    def _hurry(self, duty: str) -> None:
        self._upkeep.hurry(duty)

    # -- duties ------------------------------------------------------------------

    def _duties(self) -> list[Duty]:
        return worker_duties(
            sql=self._sql,
            settings=self._settings,
            link=self._upkeep_link,
            worker_id=self.worker_id,
            queues=self._options.queues,
            hand=self._hand,
            claims=self._claims,
            chores=self._chores,
            admission=self._admission,
            ticker=self._ticker,
            ticks=self._ticks,
        )

    def _new_chores(self) -> Chores:
        timeout = self._settings.heartbeat_timeout
        chores = worker_chores(
            self._sql,
            heartbeat_timeout=timeout,
            channel=self._settings.channel,
            # While we could not reach the database, others could not either, perhaps: they get
            # the time to beat again.
            may_rescue=lambda: self._heart.steadiness() >= timeout,
            wake=self._claims.wake,
        )
        return Chores(
            chores,
            sql=self._sql,
            link=self._upkeep_link,
            conninfo=self._conninfo,
            worker_id=self.worker_id,
            hold=min(HOLD, timeout),
            heartbeat_timeout=timeout,
            hurry=lambda: self._hurry("chores"),
        )

    # -- Body: what the heart asks and tells, from its thread ------------------------

    def worker_id(self) -> int:
        return self._id

    def started_ids(self) -> list[int]:
        return self._hand.started_ids()

    def loop_silence(self) -> float:
        return time.monotonic() - self._loop_seen

    def is_stuck(self) -> bool:
        """Whether the event loop is blocked for longer than any running job may take."""
        jobs = list(self._hand.running.copy().values())
        limits = [job.timeout or self._tasks.get(job.task).options.timeout for job in jobs]
        known = [limit for limit in limits if limit is not None]
        has_limit = bool(known) and len(known) == len(limits)
        return has_limit and self.loop_silence() > max(known) + CANCEL_GRACE

    def proven_until(self, moment: float) -> None:
        self._hand.proven_until = moment

    # -- Vitals: what the health endpoint asks, from its threads ---------------------

    def heart_idleness(self) -> float:
        return self._heart.idleness()

    def beat_silence(self) -> float:
        return self._heart.silence()

    def beat_limit(self) -> float:
        return GAP_BEATS * self._settings.beat_every

    def is_fenced(self) -> bool:
        return self._heart.is_fenced

    def stop_reason(self) -> str:
        return self._stop_sign.reason

    # -- Body, again: what follows from its beats ------------------------------------

    def fence(self, silent_seconds: float) -> None:
        emit(WorkerFenced(self._id, silent_seconds, len(self._hand.running)))
        self._event_loop.call_soon_threadsafe(self._claims.hold_off)

    def unfence(self) -> None:
        self._event_loop.call_soon_threadsafe(self._claims.resume)

    def declared_dead(self) -> None:
        """Our row is gone: what we hold was taken. Drop it and begin again under a new id."""
        emit(WorkerFenced(self._id, 0.0, len(self._hand.running)))
        self._event_loop.call_soon_threadsafe(self._claims.hold_off)
        with connect(self._conninfo()) as connection:
            self._id = run(connection, self._registration())
        self._event_loop.call_soon_threadsafe(self._begin_again)

    def _begin_again(self) -> None:
        # What was in hand under the old id is given up by now; the next beat proves the new one.
        self._hand.proven_until = math.inf
        self._claims.resume()

"""What `pgq bench` measures. Every figure is measured, and one that could not be says why."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from psycopg import IsolationLevel

from pgqueue import PgQueue
from pgqueue.db.pools import connect

from .bench_app import QUEUE, register
from .bench_place import workers

BATCH = 5_000
"""Jobs of one enqueue_many."""

LATENCY_RATE = 20.0
HELD_ROUNDS = 3
WATCH_EVERY = 0.05
# The drain begins with workers that wait: they are to see the backlog at the same time.
WAITING = {"PGQUEUE_POLL_INTERVAL": "0.05"}

# Shares of the whole time; with a held snapshot the last two are repeated in each round.
LATENCY, ONE, MANY, DRAIN = 0.15, 0.1, 0.1, 0.2
HELD_MANY, HELD_DRAIN = 0.05, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure; `value` is None where it could not be had, and `error` says why."""

    measure: str
    value: float | str | None
    unit: str = ""
    jobs: int | None = None
    seconds: float | None = None
    held_snapshot: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`seconds` is what the measurements take at most, without making and dropping tables."""

    jobs: int
    processes: int
    concurrency: int | None
    held_snapshot: bool
    seconds: float


Measures = Iterator[Measure]


class Unfinished(Exception):
    """A measurement did not come to its end in its share of the time."""


class Bench:
    """Measures on the tables of `pgq`, which are the bench's own."""

    def __init__(self, pgq: PgQueue, plan: Plan, say: Callable[[str], None]) -> None:
        self._pgq = pgq
        self._plan = plan
        self._say = say
        self._noop, self._latency_task = register(pgq)
        self._found: list[Measure] = []
        self._ids: list[int] = []

    def run(self) -> list[Measure]:
        """All measurements, one after the other."""
        self._phase("server", self._server)
        self._phase("WAL of others", self._background)
        self._phase("latency", self._latency)
        self._phase("throughput", self._throughput)
        return self._found

    def _phase(self, name: str, measure: Callable[[], Measures]) -> None:
        self._say(name)
        try:
            for one in measure():
                self._found.append(one)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the table
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._found.append(Measure(measure=name, value=None, error=reason))

    # -- phases -------------------------------------------------------------------

    def _server(self) -> Measures:
        version, commit, fsync = self._ask("bench_server")
        yield Measure(measure="postgres", value=version)
        yield Measure(measure="synchronous_commit", value=commit)
        yield Measure(measure="fsync", value=fsync)
        concurrency = self._plan.concurrency or self._pgq.settings.concurrency
        yield Measure(measure="worker processes", value=self._plan.processes)
        yield Measure(measure="concurrency of each", value=concurrency)

    def _background(self) -> Measures:
        began, before = time.monotonic(), self._wal()
        time.sleep(1.0)
        written, seconds = self._wal() - before, time.monotonic() - began
        yield Measure(
            measure="WAL of others, before", value=written / seconds, unit="bytes/s",
            seconds=seconds,
        )  # fmt: skip

    def _latency(self) -> Measures:
        count = max(1, int(self._plan.seconds * LATENCY * LATENCY_RATE))
        with self._workers():
            ids = []
            for _ in range(count):
                # At random moments: in step with a poll, half of the figures would be luck.
                time.sleep(random.uniform(0, 2 / LATENCY_RATE))  # noqa: S311 - jitter
                ids.append(self._latency_task.enqueue(sent=time.time()).id)
            self._wait_until_gone(max(ids), 10.0)
        jobs, seconds = self._ask("bench_latencies", first=min(ids), last=max(ids))
        for name, value in zip(("p50", "p95", "p99", "max"), seconds or (), strict=False):
            yield Measure(
                measure=f"enqueue to start, {name}", value=1000 * value, unit="ms", jobs=jobs
            )
        if jobs < count:
            raise Unfinished(f"{jobs} of {count} jobs completed")

    def _throughput(self) -> Measures:
        with self._workers(**WAITING):
            self._pgq.pause(QUEUE)
            yield self._enqueue_one()
            yield from self._enqueue_many(MANY)
            clean = None
            for measure in self._drain(DRAIN):
                clean = clean or measure
                yield measure
            if self._plan.held_snapshot and clean is not None:
                yield from self._held(float(clean.value or 0))

    def _held(self, clean: float) -> Measures:
        with self._snapshot():
            for number in range(1, HELD_ROUNDS + 1):
                self._say(f"held snapshot, {number} of {HELD_ROUNDS}")
                self._ids = []
                self._pgq.pause(QUEUE)
                measures = [*self._enqueue_many(HELD_MANY), *self._drain(HELD_DRAIN)]
                name = f", held snapshot, round {number}"
                yield from (
                    replace(one, measure=one.measure + name, held_snapshot=True) for one in measures
                )
                last = next(one for one in measures if one.measure == "drain")
        if clean and last.value:
            yield Measure(
                measure="drain, last round of the clean one", value=float(last.value) / clean,
                unit="ratio", held_snapshot=True,
            )  # fmt: skip

    # -- measurements -------------------------------------------------------------

    def _enqueue_one(self) -> Measure:
        began = time.monotonic()
        deadline = began + self._plan.seconds * ONE
        jobs = 0
        while jobs < self._plan.jobs and time.monotonic() < deadline:
            self._ids.append(self._noop.enqueue().id)
            jobs += 1
        seconds = time.monotonic() - began
        return Measure(
            measure="enqueue, one by one", value=jobs / seconds, unit="jobs/s",
            jobs=jobs, seconds=seconds,
        )  # fmt: skip

    def _enqueue_many(self, share: float) -> Measures:
        began, before = time.monotonic(), self._wal()
        deadline = began + self._plan.seconds * share
        jobs = 0
        while jobs < self._plan.jobs and time.monotonic() < deadline:
            batch = min(BATCH, self._plan.jobs - jobs)
            self._ids += self._noop.enqueue_many([{}] * batch)
            jobs += batch
        seconds = time.monotonic() - began
        yield Measure(
            measure="enqueue_many", value=jobs / seconds, unit="jobs/s", jobs=jobs, seconds=seconds
        )
        written = self._wal() - before
        yield Measure(
            measure="WAL, enqueue_many", value=written / jobs, unit="bytes/job", jobs=jobs
        )

    def _drain(self, share: float) -> Measures:
        first, last, before = min(self._ids), max(self._ids), self._wal()
        self._pgq.resume(QUEUE)
        is_gone = self._wait_until_gone(last, self._plan.seconds * share)
        written = self._wal() - before
        jobs, seconds = self._ask("bench_drained", first=first, last=last)
        if not jobs or not seconds:
            raise Unfinished("no job was completed in its time")
        yield Measure(
            measure="drain", value=jobs / seconds, unit="jobs/s", jobs=jobs, seconds=seconds
        )
        yield Measure(measure="WAL, drain", value=written / jobs, unit="bytes/job", jobs=jobs)
        # Backends report what they did after a second at the latest.
        time.sleep(1.1)
        (dead,) = self._ask("bench_dead_rows")
        yield Measure(measure="dead rows after it", value=dead, unit="rows")
        if not is_gone:
            raise Unfinished(
                f"{jobs} of {len(self._ids)} jobs were drained in time: "
                "fewer --jobs, or more --seconds"
            )

    # -- means --------------------------------------------------------------------

    def _workers(self, **settings: str) -> Any:
        plan = self._plan
        schema = self._pgq.settings.schema_name
        return workers(schema, plan.processes, plan.concurrency, **settings)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        connection = connect(self._pgq.conninfo())
        with connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            with connection.transaction():
                connection.execute(self._pgq.sql["bench_server"])
                yield
                # Raises where somebody has ended it: then no snapshot was held.
                connection.execute(self._pgq.sql["bench_server"])

    def _ask(self, name: str, **params: Any) -> Any:
        with self._pgq.connection() as connection:
            return connection.execute(self._pgq.sql[name], params or None).fetchone()

    def _wal(self) -> float:
        return float(self._ask("bench_wal_position")[0])

    def _wait_until_gone(self, last: int, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self._ask("bench_has_job", id=last)[0] or self._ask("bench_has_jobs")[0]:
            if time.monotonic() >= deadline:
                return False
            time.sleep(WATCH_EVERY)
        return True

"""The world of the state machine: its connections, its model of the jobs, and what always holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from pgqueue.db.run import Steps, run
from pgqueue.engine.rescue import InHand, register_worker
from pgqueue.job import Job
from pgqueue.sql import load

SQL = load("pgqueue.sql", "pgqueue")
START = datetime(2040, 1, 1, 12, 0, tzinfo=UTC)
TIMEOUT = 15.0
PERIOD = 60.0
QUEUES = ("a", "b")
TASKS = ("known", "other")
KEYS = ("k1", "k2", None, None)
PERIOD_KEYS = ("p1", "p2")

# Which way a job may go in which step; what is not named here must not move.
LEGAL = {
    "claim": {("queued", "running")},
    "finish": {("running", "completed"), ("running", "failed"), ("running", "cancelled")},
    "requeue": {("running", "queued")},
    "cancel": {("queued", "cancelled")},
    "expire": {("queued", "cancelled")},
    "rescue": {("running", "queued")},
    "strays": {("running", "queued")},
}

PREPARE = """
create table if not exists public.test_clock (at timestamptz not null);
create table if not exists public.effects (job_id bigint not null, lease bigint not null);
create or replace function pgqueue.clock() returns timestamptz
  language sql stable as 'select at from public.test_clock';
create or replace function pgqueue.clock_now() returns timestamptz
  language sql volatile as 'select at from public.test_clock';
"""
EMPTY = """
delete from public.test_clock;
truncate public.effects;
delete from pgqueue.jobs;
delete from pgqueue.finished_jobs;
delete from pgqueue.job_logs;
delete from pgqueue.workers;
delete from pgqueue.queues;
delete from pgqueue.unique_keys;
alter sequence pgqueue.jobs_id_seq restart;
alter sequence pgqueue.workers_id_seq restart;
"""


@dataclass(frozen=True)
class Row:
    """What the database says about one job."""

    state: str
    attempt: int
    max_attempts: int
    lease: int | None
    worker_id: int | None
    run_at: datetime
    queue: str
    task: str
    unique_key: str | None
    expires_at: datetime | None
    suspect: bool
    payload: dict[str, Any]


@dataclass
class Worker:
    """What one worker believes: the jobs it holds, and whether it still beats."""

    id: int
    connection: psycopg.Connection[Any]
    beating: bool = True


class World(RuleBasedStateMachine):
    """What the rules of the machine share; after each of them the database is asked."""

    url: str
    steps_done = 0
    lost_writes = 0

    def __init__(self) -> None:
        super().__init__()
        # Nobody may wait long for a transaction that a client leaves open.
        patience = "-c lock_timeout=2s"
        self.connections = [
            psycopg.connect(self.url, autocommit=True, options=patience) for _ in range(4)
        ]
        self.watch, self.client, self.operator, self.open = self.connections
        self.now = START
        self.enqueued: set[int] = set()
        self.open_ids: set[int] = set()
        self.workers: list[Worker] = []
        self.held: list[Job] = []
        self.forgotten: set[int] = set()
        self.periods: dict[str, tuple[datetime, int]] = {}
        self.before: dict[int, Row] = {}
        self.finished: dict[int, str] = {}
        self.midway: list[tuple[str, Steps[Any], Any, psycopg.Connection[Any]]] = []
        self.moved_by: set[str] = set()
        self.effects_expected: set[tuple[int, int]] = set()

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()

    # -- coming to the start -------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.watch.execute(EMPTY)
        self.watch.execute("insert into public.test_clock values (%s)", [START])
        self.watch.execute("select pgqueue.make_partitions()")
        self._add_worker()

    def _add_worker(self) -> None:
        steps = register_worker(
            SQL, host="h", pid=1, version="", queues=(), concurrency=4, tasks=TASKS
        )
        connection = self.client if len(self.workers) % 2 else self.operator
        self.workers.append(Worker(run(connection, steps), connection))

    @contextmanager
    def step(self, *kinds: str) -> Iterator[None]:
        """Around each rule: which kinds of transitions it may cause."""
        type(self).steps_done += 1
        self.moved_by = set(kinds)
        yield

    # -- what the rules ask ------------------------------------------------------------

    def _eligible(self, tasks: tuple[str, ...], *, suspects: bool) -> set[int]:
        paused = {
            name for (name,) in self.watch.execute("select name from pgqueue.queues where paused")
        }
        return {
            job_id
            for job_id, row in self.before.items()
            if row.state == "queued"
            and row.run_at <= self.now
            and row.queue not in paused
            and row.task in tasks
            and (suspects or not row.suspect)
        }

    def _draw_held(self, data: st.DataObject, most: int = 3) -> list[Job]:
        drawn = data.draw(
            st.lists(st.integers(0, len(self.held) - 1), min_size=1, max_size=most, unique=True),
            "held",
        )
        by_id = {self.held[place].id: self.held[place] for place in drawn}
        return list(by_id.values())

    def _is_current(self, job: Job) -> bool:
        row = self.before.get(job.id)
        return row is not None and row.lease == job.lease

    def _forget(self, jobs: list[Job], data: st.DataObject) -> None:
        # A zombie goes on believing: its next write has to come to nothing.
        if data.draw(st.sampled_from((True, True, False)), "forgets"):
            gone = {(job.id, job.lease) for job in jobs}
            self.held = [job for job in self.held if (job.id, job.lease) not in gone]

    def _silent(self) -> set[int | None]:
        alive = self.watch.execute(
            "select id from pgqueue.workers where heartbeat_at >= %s",
            [self.now - timedelta(seconds=TIMEOUT)],
        )
        ids = {worker_id for (worker_id,) in alive}
        return {row.worker_id for row in self.before.values()} - ids - {None}

    def _hand(self, worker: Worker) -> Any:
        def in_hand() -> InHand:
            ids = {job.id for job in self.held if job.worker_id == worker.id}
            return InHand(frozenset(), frozenset(ids))

        return in_hand

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def the_database_agrees(self) -> None:
        live = self._live()
        finished = self._finished()
        assert not live.keys() & finished.keys(), "a job is live and finished"
        assert live.keys() | finished.keys() == self.enqueued, (
            "a job was lost, or came from nowhere"
        )
        for job_id, row in live.items():
            assert row.attempt <= row.max_attempts
            assert (row.state == "running") == (row.lease is not None)
            self._check_move(job_id, row.state, row)
        for job_id, state in finished.items():
            if job_id in self.finished:
                assert self.finished[job_id] == state, "a final state changed"
            else:
                self._check_move(job_id, state, None)
        self.before, self.finished = live, finished
        self._check_keys(live)
        self._check_views(live, finished)
        effects = self.watch.execute("select job_id, lease from public.effects").fetchall()
        assert sorted(effects) == sorted(self.effects_expected), "an effect without its lease"

    def _check_move(self, job_id: int, state: str, row: Row | None) -> None:
        was = self.before.get(job_id)
        if was is None:
            assert state == "queued", f"a new job is {state}"
            return
        if was.state != state:
            legal = set().union(*(LEGAL.get(kind, set()) for kind in self.moved_by))
            assert (was.state, state) in legal, f"{was.state} -> {state} in {self.moved_by}"
        elif row is not None and not {"rescue", "claim"} <= self.moved_by:
            assert row.lease == was.lease, "a lease changed hands without a stop in the queue"

    @staticmethod
    def _check_keys(live: dict[int, Row]) -> None:
        keys = [row.unique_key for row in live.values() if row.unique_key]
        assert len(keys) == len(set(keys))

    def _check_views(self, live: dict[int, Row], finished: dict[int, str]) -> None:
        ((everything,),) = self.watch.execute("select count(*) from pgqueue.all_jobs")
        assert everything == len(live) + len(finished)
        stats = self.watch.execute(
            "select queue, queued + scheduled + retrying, running from pgqueue.queue_stats"
        ).fetchall()
        assert sum(waiting + running for _, waiting, running in stats) == len(live)
        for queue, waiting, running in stats:
            states = [row.state for row in live.values() if row.queue == queue]
            assert (states.count("queued"), states.count("running")) == (waiting, running)

    def _live(self) -> dict[int, Row]:
        cursor = self.watch.execute(
            "select id, state, attempt, max_attempts, lease, worker_id, run_at, queue, task,"
            " unique_key, expires_at, suspect, payload from pgqueue.jobs"
        )
        return {job_id: Row(*rest) for job_id, *rest in cursor}

    def _finished(self) -> dict[int, str]:
        found = self.watch.execute("select id, state from pgqueue.finished_jobs").fetchall()
        assert len(found) == len({job_id for job_id, _ in found}), "a job finished twice"
        return dict(found)

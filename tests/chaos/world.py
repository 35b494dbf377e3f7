"""The world of the state machine: its connections, its model, and the look at the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from model import LEGAL, Beat, Model, Row

from pgqueue.db.run import Batch, Statement, Steps, _answer, run
from pgqueue.engine.operate import Operator
from pgqueue.engine.rescue import InHand, register_worker
from pgqueue.job import Job
from pgqueue.sql import load

SQL = load("pgqueue.sql", "pgqueue")
NAMES = {text: name for name, text in SQL.items()}
START = datetime(2040, 1, 1, 12, 0, tzinfo=UTC)
TIMEOUT = 15.0
QUEUES = ("a", "b")
TASKS = ("known", "other")
OPERATOR = Operator("operator", "cli")

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
delete from pgqueue.audit_log;
alter sequence pgqueue.jobs_id_seq restart;
alter sequence pgqueue.workers_id_seq restart;
"""
LOOK_AT_JOBS = """
select
  id, state, task, queue, priority, payload, unique_key, run_at, scheduled_at, attempt,
  max_attempts, expires_at, lease, worker_id, started_at, cancel_requested_at, crashes, suspect,
  (progress ->> 'percent')::double precision,
  array(select error ->> 'reason' from jsonb_array_elements(errors) as error),
  {rest}
"""
LOOK_AT_LIVE = LOOK_AT_JOBS.format(rest="null, null from pgqueue.jobs")
LOOK_AT_FINISHED = LOOK_AT_JOBS.format(rest="result, finished_at from pgqueue.finished_jobs")


@dataclass
class Worker:
    """What one worker believes: the jobs it holds, and claims whose replies have not come."""

    id: int
    connection: psycopg.Connection[Any]
    under_way: dict[int, list[Job]] = field(default_factory=dict)


@dataclass(eq=False)
class Midway:
    """A verb that was left in the middle, and what it asks for next."""

    steps: Steps[Any]
    asked: Statement | Batch


class World(RuleBasedStateMachine):
    """What the rules of the machine share; after each step the database is asked."""

    url: str
    steps_done = 0
    lost_writes = 0
    deeds: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        # Nobody may wait long for a transaction that is left open.
        patience = "-c lock_timeout=2s"
        self.connections = [
            psycopg.connect(self.url, autocommit=True, options=patience) for _ in range(5)
        ]
        self.watch, self.client, self.operator, self.open, self.slow = self.connections
        self.model = Model(START)
        self.open_jobs: dict[int, Row] = {}
        self.exchange: Model | None = None
        self.locked: set[int] = set()
        self.workers: list[Worker] = []
        self.held: list[Job] = []
        self.leases: set[int] = set()
        self.midway: list[Midway] = []

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()

    @initialize()
    def begin(self) -> None:
        self.watch.execute(EMPTY)
        self.watch.execute("insert into public.test_clock values (%s)", [START])
        self.watch.execute("select pgqueue.make_partitions()")
        self._add_worker()

    def _add_worker(self) -> Worker:
        with self.step("worker"):
            steps = register_worker(
                SQL, host="h", pid=1, version="", queues=(), concurrency=4, tasks=TASKS
            )
            connection = self.client if len(self.workers) % 2 else self.operator
            worker = Worker(run(connection, steps), connection)
            self.workers.append(worker)
            self.model.workers[worker.id] = Beat(self.model.now)
        return worker

    @contextmanager
    def step(self, name: str) -> Iterator[Model]:
        """Around each deed, which says in the model what it should have done."""
        type(self).steps_done += 1
        before = self.model.copy()
        yield self.model
        self._look(before, name)
        # Only what moved something counts as tried.
        if before != self.model:
            self.deeds[name] += 1

    def _move_the_clock(self, seconds: float) -> None:
        with self.step("clock") as model:
            model.now = later(model.now, seconds)
            self.watch.execute("update public.test_clock set at = %s", [model.now])
            self.watch.execute("select pgqueue.make_partitions()")

    # -- what the rules ask ------------------------------------------------------------

    def _draw_held(self, data: st.DataObject, most: int = 3) -> list[Job]:
        count = len(self.held)
        drawn = data.draw(
            st.lists(st.integers(0, count - 1), min_size=1, max_size=most, unique=True), "held"
        )
        return list({self.held[place].id: self.held[place] for place in drawn}.values())

    def _is_current(self, job: Job) -> bool:
        row = self.model.jobs.get(job.id)
        return row is not None and row.finished_at is None and row.lease == job.lease

    def _forget(self, jobs: list[Job], data: st.DataObject) -> None:
        # A zombie goes on believing: its next write has to come to nothing.
        if data.draw(st.sampled_from((True, True, False)), "forgets"):
            gone = {(job.id, job.lease) for job in jobs}
            self.held = [job for job in self.held if (job.id, job.lease) not in gone]

    def _hand(self, worker: Worker) -> InHand:
        ids = {job.id for job in self.held if job.worker_id == worker.id}
        return InHand(frozenset(worker.under_way), frozenset(ids))

    def _answer(self, asked: Statement | Batch) -> Any:
        """Carry out one statement of a duty or of an operator, as a step of its own."""
        statement = asked.statements[-1] if isinstance(asked, Batch) else asked
        name, params = NAMES[statement.text], statement.params or {}
        with self.step(name) as model:
            reply = _answer(self.operator, asked)
            rows = reply[-1] if isinstance(asked, Batch) else reply
            ids = {row[0] for row in rows}
            match name:
                case "find_dead_workers":
                    silent = model.silent(TIMEOUT)
                    assert ids == silent, (ids, silent)
                case "rescue_jobs":
                    taken = model.rescue(params["worker_id"], TIMEOUT, self.locked)
                    assert ids == taken, (ids, taken, self.locked)
                case "forget_worker":
                    assert bool(rows) == model.forget(params["worker_id"])
                case "now":
                    assert ids == {model.now}
                case "hand_back_strays":
                    places = ("worker_id", "before", "in_flight", "held")
                    known = [params[place] for place in places]
                    taken = model.strays(*known, locked=self.locked)
                    assert ids == taken, (ids, taken, self.locked)
                case "find_expired":
                    late = model.expired() - self.locked
                    assert ids == late, (ids, late, self.locked)
                case "cancel_jobs":
                    became = model.cancel(params["ids"], params["reason"])
                    assert dict(rows) == became, (rows, became)
                case _:
                    raise AssertionError(f"the model does not know what {name} means")
        return reply

    # -- what always holds ---------------------------------------------------------------

    def _look(self, before: Model, name: str) -> None:
        live = self._rows(LOOK_AT_LIVE)
        finished = self._rows(LOOK_AT_FINISHED)
        assert not live.keys() & finished.keys(), "a job is live and finished"
        found = live | finished
        assert found.keys() == self.model.jobs.keys(), "a job was lost, or came from nowhere"
        for job_id, row in self.model.jobs.items():
            assert found[job_id] == row, f"job {job_id} is not what it should be"
        for job_id in found.keys() | before.jobs.keys():
            # One commit may put a job back and take it again.
            is_exchange = name == "exchange-end"
            self._check_move(before.jobs.get(job_id), found.get(job_id), is_exchange=is_exchange)
        keys = [row.unique_key for row in live.values() if row.unique_key]
        assert len(keys) == len(set(keys)), "two live jobs share a unique key"
        self._check_others()
        self._check_views(live, finished)

    @staticmethod
    def _check_move(was: Row | None, row: Row | None, *, is_exchange: bool) -> None:
        """Holds whatever the model says."""
        states = (was.state if was else None, row.state if row else None)
        assert states[0] == states[1] or states in LEGAL, states
        if row is None:
            return
        assert row.attempt <= row.max_attempts
        assert (row.state == "running") <= (row.lease is not None)
        if was and was.state == row.state == "running" and not is_exchange:
            assert row.lease == was.lease, "a lease changed hands without a stop in the queue"
        if was and was.finished_at and row.finished_at:
            assert was == row, "a finished job changed"
        if was and row.state == "queued":
            hurried = was.state == "queued"
            assert hurried or was.finished_at or row.run_at >= was.run_at, "back before its bound"

    def _check_others(self) -> None:
        ask = self.watch.execute
        beats = ask("select id, heartbeat_at, started_jobs from pgqueue.workers")
        workers = {i: Beat(at, frozenset(started)) for i, at, started in beats}
        assert workers == self.model.workers
        periods = ask("select key, job_id, until from pgqueue.unique_keys")
        assert {key: (job_id, until) for key, job_id, until in periods} == self.model.periods
        deeds = ask("select action from pgqueue.audit_log order by id")
        assert [deed for (deed,) in deeds] == self.model.deeds, "the audit log tells otherwise"
        effects = ask("select job_id, lease from public.effects").fetchall()
        assert sorted(effects) == sorted(self.model.effects), "an effect without its lease"

    def _check_views(self, live: dict[int, Row], finished: dict[int, Row]) -> None:
        ((everything,),) = self.watch.execute("select count(*) from pgqueue.all_jobs")
        assert everything == len(live) + len(finished)
        stats = self.watch.execute(
            "select queue, queued + scheduled + retrying, running from pgqueue.queue_stats"
        ).fetchall()
        assert sum(waiting + running for _, waiting, running in stats) == len(live)
        for queue, waiting, running in stats:
            states = [row.state for row in live.values() if row.queue == queue]
            assert (states.count("queued"), states.count("running")) == (waiting, running)

    def _rows(self, query: str) -> dict[int, Row]:
        found = self.watch.execute(query).fetchall()
        assert len(found) == len({row[0] for row in found}), "a job is there twice"
        return {job_id: _row(*rest) for job_id, *rest in found}


def _row(*columns: Any) -> Row:
    *rest, reasons, result, finished_at = columns
    return Row(*rest, tuple(reasons), result, finished_at)


def later(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)

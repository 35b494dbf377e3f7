"""Rules of the state machine: what workers do with jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
from enqueuing import Enqueuing
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model import Model
from operating import Operating
from world import SQL, TASKS, Worker

from pgqueue.db.run import Batch, Statement, Steps, ask, run
from pgqueue.engine.claim import (
    Lane,
    claim_jobs,
    claimed_of_rows,
    look_around,
    look_of_rows,
    new_lease,
)
from pgqueue.engine.finish import (
    finish_within,
    outcome_statements,
    parted,
    prove_lease,
    written_of_rows,
)
from pgqueue.engine.notes import Progress, note_statements
from pgqueue.errors import TransactionEnded
from pgqueue.job import Ended, Job, NewJob, Outcome, Requeued, State

ENDINGS = ("complete", "complete", "fail", "fail", "snooze", "hand back", "stop")


class Working(Enqueuing, Operating):
    """Claim, finish, put back; with replies that are lost, and writes that come too late."""

    # -- claims ------------------------------------------------------------------------

    @rule(
        data=st.data(),
        limit=st.integers(1, 5),
        reply=st.sampled_from(("comes", "comes", "comes", "lost", "under way")),
        suspects=st.booleans(),
    )
    def claim(self, data: st.DataObject, *, limit: int, reply: str, suspects: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        tasks = data.draw(st.sampled_from((TASKS, ("known",))), "tasks")
        lanes = data.draw(st.permutations(self.model.lanes()), "lanes")
        self._claim(worker, lanes, tasks, limit=limit, suspects=suspects, reply=reply)

    def _claim(
        self,
        worker: Worker,
        lanes: Sequence[tuple[str, int]],
        tasks: Sequence[str],
        *,
        limit: int,
        suspects: bool = True,
        reply: str = "comes",
    ) -> None:
        with self.step("claim") as model:
            found = look_of_rows(run(worker.connection, ask(look_around(SQL, 0)))).lanes
            assert sorted((queue, priority) for queue, priority, _ in found) == model.lanes()
            if not found:
                return
            due = model.due(lanes, tasks, suspects=suspects, locked=self.locked)[:limit]
            lease = self._new_lease()
            how = {"worker_id": worker.id, "lease": lease, "limit": limit, "suspects": suspects}
            statement = claim_jobs(SQL, [Lane(*lane) for lane in lanes], tasks, **how)
            jobs = self._claimed(worker.connection, statement, lease)
            ids = sorted(job.id for job in jobs)
            assert ids == sorted(due), f"claimed {ids}, due {due}, locked {self.locked}"
            model.claim(due, lease, worker.id)
            self._check_reply(jobs)
        if reply == "comes":
            self.held += jobs
        elif reply == "under way" and jobs:
            worker.under_way[lease] = jobs

    @staticmethod
    def _claimed(
        connection: psycopg.Connection[Any], statement: Statement, lease: int
    ) -> list[Job]:
        return [one.job() for one in claimed_of_rows(lease, run(connection, _one(statement))).jobs]

    def _new_lease(self) -> int:
        lease = new_lease()
        assert lease not in self.leases, "a lease was given twice: zombies write with the first"
        self.leases.add(lease)
        return lease

    def _check_reply(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            row = self.model.jobs[job.id]
            told = (job.lease, job.attempt, job.payload, job.worker_id, job.suspect, job.task)
            assert told == (
                row.lease, row.attempt, row.payload, row.worker_id, row.suspect, row.task
            )  # fmt: skip

    @precondition(lambda self: any(worker.under_way for worker in self.workers))
    @rule(data=st.data())
    def a_reply_comes(self, data: st.DataObject) -> None:
        waiting = [worker for worker in self.workers if worker.under_way]
        worker = data.draw(st.sampled_from(waiting), "worker")
        lease = data.draw(st.sampled_from(sorted(worker.under_way)), "lease")
        self.held += worker.under_way.pop(lease)

    # -- endings -----------------------------------------------------------------------

    def _need_held(self) -> None:
        """A rule about jobs in hand makes some, rather than come to nothing."""
        if any(self._is_current(job) for job in self.held):
            return
        self._enqueue(NewJob("known", "a", {}, max_attempts=2), 3)
        if "a" in self.model.paused:
            self._pause_or_resume("a", paused=False)
        self._claim(self.workers[-1], self.model.lanes(), TASKS, limit=50)

    @rule(
        data=st.data(),
        how=st.sampled_from(ENDINGS),
        ran=st.sampled_from((0.0, 1.0, 1.0, -20.0)),
    )
    def end_jobs(self, data: st.DataObject, how: str, ran: float) -> None:
        self._need_held()
        if ran:
            # The database's clock may step back while a job runs.
            self._move_the_clock(ran)
        jobs = self._draw_held(data)
        self._end(jobs, how)
        self._forget([job for job in jobs if job.id not in self.locked], data)

    def _end(self, jobs: Sequence[Job], how: str) -> None:
        with self.step(how) as model:
            outcomes = [_outcome(job, how) for job in jobs]
            replies = run(self.operator, _batch(outcome_statements(SQL, outcomes)))
            written = written_of_rows(outcomes, replies)
            written = run(self.operator, parted(SQL, written))
            valid = {job.id for job in jobs if self._is_current(job)}
            current = valid - self.locked
            assert written.applied == current, "a write must count exactly when its lease does"
            # Whose row another transaction holds may write again, and is no zombie.
            assert {one.job_id for one in written.held} == valid - current
            type(self).lost_writes += len(written.lost)
            self._write(model, [outcome for outcome in outcomes if outcome.job_id in current])

    @staticmethod
    def _write(model: Model, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            reason = "test" if one.error else None
            if isinstance(one, Requeued):
                model.requeue(one.job_id, one.delay, one.uncounted, reason)
            else:
                result = None if one.result is None else json.loads(one.result)
                model.end(one.job_id, one.state.value, reason, result)

    @precondition(lambda self: not self.exchange)
    @rule(data=st.data(), own_commit=st.sampled_from((False, False, False, True)))
    def end_in_a_transaction(self, data: st.DataObject, *, own_commit: bool) -> None:
        self._need_held()
        (job,) = self._draw_held(data, 1)
        lease = job.lease or 0
        with self.step("transaction") as model:
            began = self._write_effect(job, own_commit=own_commit)
            try:
                ended = Ended(job.id, lease, State.COMPLETED, "1")
                ours = run(self.client, finish_within(SQL, ended, began))
            except TransactionEnded:
                ours = False
                assert own_commit
            self.client.execute("commit" if ours else "rollback")
            assert ours == (self._is_current(job) and not own_commit)
            if ours:
                model.effects.append((job.id, lease))
                model.end(job.id, "completed", None, 1)
        self._forget([job], data)

    @precondition(lambda self: not self.exchange)
    @rule(data=st.data())
    def write_a_stage(self, data: st.DataObject) -> None:
        """What `job.transaction()` does: an effect that counts, and the job runs on."""
        self._need_held()
        (job,) = self._draw_held(data, 1)
        lease = job.lease or 0
        with self.step("stage") as model:
            began = self._write_effect(job, own_commit=False)
            ours = run(self.client, prove_lease(SQL, job.id, lease, began))
            self.client.execute("commit" if ours else "rollback")
            assert ours == self._is_current(job)
            if ours:
                model.effects.append((job.id, lease))

    def _write_effect(self, job: Job, *, own_commit: bool) -> Any:
        self.client.execute("begin")
        ((began,),) = self.client.execute("select transaction_timestamp()").fetchall()
        self.client.execute("insert into public.effects values (%s, %s)", [job.id, job.lease])
        if own_commit:
            self.client.execute("rollback; begin")
        return began

    @rule(data=st.data(), percent=st.integers(0, 100))
    def say_progress(self, data: st.DataObject, percent: int) -> None:
        self._need_held()
        (job,) = self._draw_held(data, 1)
        with self.step("progress") as model:
            note = Progress(job.id, job.lease or 0, percent, "")
            (statement,) = note_statements(SQL, [note], 0.0)
            cursor = self.client.execute(statement.text, statement.params)
            counts = self._is_current(job) and job.id not in self.locked
            assert cursor.rowcount == int(counts)
            if counts:
                model.jobs[job.id] = _with_percent(model, job.id, percent)

    @precondition(lambda self: not self.exchange and not self.open_jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if not self.model.of_state("failed", "cancelled"):
            self._need_held()
            job = next(job for job in self.held if self._is_current(job))
            self._end([job], "stop")
        self._retry(data)

    # -- one commit for endings and the next claim, left open --------------------------------

    @precondition(lambda self: not self.exchange and not self.open_jobs)
    @rule(data=st.data(), limit=st.integers(1, 3))
    def begin_an_exchange(self, data: st.DataObject, limit: int) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        self._need_held()
        jobs = self._draw_held(data, 2)
        with self.step("exchange"):
            outcomes = [_outcome(job, "fail") for job in jobs]
            future = self.model.copy()
            self._write(future, [one for one, job in zip(outcomes, jobs, strict=True)
                                 if self._is_current(job)])  # fmt: skip
            lanes, lease = future.lanes(), self._new_lease()
            due = future.due(lanes, TASKS, suspects=True)[:limit]
            future.claim(due, lease, worker.id)
            how = {"worker_id": worker.id, "lease": lease, "limit": limit}
            claim = claim_jobs(SQL, [Lane(*lane) for lane in lanes], TASKS, **how)
            self.slow.execute("begin")
            for statement in outcome_statements(SQL, outcomes):
                run(self.slow, _one(statement))
            self.reply = self._claimed(self.slow, claim, lease)
            assert sorted(job.id for job in self.reply) == sorted(due)
            self.exchange = future
            self.locked = {job.id for job in jobs if self._is_current(job)} | set(due)

    @precondition(lambda self: self.exchange)
    @rule(commit=st.sampled_from((True, True, False)), reply=st.booleans())
    def end_the_exchange(self, *, commit: bool, reply: bool) -> None:
        with self.step("exchange-end") as model:
            self.slow.execute("commit" if commit else "rollback")
            if commit:
                assert self.exchange is not None
                model.jobs.update({i: self.exchange.jobs[i] for i in self.locked})
            self.exchange, self.locked = None, set()
        if commit and reply:
            self.held += self.reply


def _with_percent(model: Model, job_id: int, percent: float) -> Any:
    row = model.jobs[job_id]
    return type(row)(**{**vars(row), "percent": float(percent)})


def _outcome(job: Job, how: str) -> Outcome:
    lease = job.lease or 0
    error = json.dumps({"attempt": job.attempt, "reason": "test"})
    match how:
        case "complete":
            return Ended(job.id, lease, State.COMPLETED, "1")
        case "fail" if job.attempt >= job.max_attempts:
            return Ended(job.id, lease, State.FAILED, error=error)
        case "fail":
            return Requeued(job.id, lease, delay=5.0 * (job.id % 2), error=error)
        case "snooze":
            return Requeued(job.id, lease, delay=10.0, uncounted=1)
        case "hand back":
            return Requeued(job.id, lease, uncounted=1)
        case _:
            return Ended(job.id, lease, State.CANCELLED, error=error)


def _one(statement: Statement) -> Steps[Any]:
    return (yield statement)


def _batch(statements: Sequence[Statement]) -> Steps[Any]:
    return (yield Batch(tuple(statements)))

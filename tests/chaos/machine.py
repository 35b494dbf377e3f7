"""A state machine that drives the engine's verbs over several connections, with a model beside it.

Time stands still between steps and is moved by rules. Verbs are generators, so some of them are
left in the middle and go on later: other steps come in between.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from world import (
    PERIOD,
    PERIOD_KEYS,
    QUEUES,
    SQL,
    START,
    TASKS,
    TIMEOUT,
    World,
)

from pgqueue.db.run import Batch, Steps, _answer, run
from pgqueue.engine.cancel import cancel_jobs, end_expired
from pgqueue.engine.claim import Lane, claim_jobs, claimed_of_rows, find_lanes, new_lease
from pgqueue.engine.enqueue import enqueue_job, enqueue_jobs
from pgqueue.engine.finish import finish_within, outcome_statements, written_of_rows
from pgqueue.engine.notes import Progress, note_statements
from pgqueue.engine.rescue import beat, forget_worker, hand_back_strays, rescue_jobs
from pgqueue.errors import TransactionEnded, UniqueKeyBusy, UniqueKeyTaken
from pgqueue.job import Ended, Job, NewJob, Outcome, Requeued, State


class QueueMachine(World):
    """Steps are rules."""

    # -- enqueue -------------------------------------------------------------------

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 5, 9)),
        delay=st.sampled_from((0.0, 0.0, 20.0)),
        task=st.sampled_from(TASKS),
        attempts=st.integers(1, 3),
        expires=st.sampled_from((None, None, 30.0)),
        many=st.integers(1, 4),
    )
    def enqueue(self, expires: float | None, many: int, attempts: int, **given: Any) -> None:
        with self.step():
            expires_at = None if expires is None else self.now + timedelta(seconds=expires)
            new = NewJob(payload={}, max_attempts=attempts, expires_at=expires_at, **given)
            if many == 1:
                self.enqueued.add(run(self.client, enqueue_job(SQL, new)).id)
            else:
                self.enqueued |= set(run(self.client, enqueue_jobs(SQL, [new] * many)))

    @rule(
        key=st.sampled_from(("k1", "k2", "k3")),
        mode=st.sampled_from(("skip", "replace", "raise")),
        n=st.integers(0, 99),
    )
    def enqueue_keyed(self, key: str, mode: str, n: int) -> None:
        with self.step():
            holder = next((i for i, row in self.before.items() if row.unique_key == key), None)
            try:
                job = run(self.client, enqueue_job(SQL, _keyed(key, mode, n)))
            except UniqueKeyBusy:
                assert self.open_ids, "busy, and nobody has a transaction open"
                return
            except UniqueKeyTaken as taken:
                assert mode == "raise"
                assert taken.job_id == holder  # noqa: PT017 - one of several endings
                return
            self.enqueued.add(job.id)
            stays = holder is not None and not (
                mode == "replace" and self.before[holder].state == "running"
            )
            assert (job.id == holder) == stays
            assert mode != "raise" or holder is None
            assert mode != "replace" or job.payload == {"n": n}

    @rule(key=st.sampled_from(PERIOD_KEYS), mode=st.sampled_from(("skip", "replace", "raise")))
    def enqueue_for_a_period(self, key: str, mode: str) -> None:
        with self.step():
            until, holder = self.periods.get(key, (START - timedelta(days=1), 0))
            live = next((i for i, row in self.before.items() if row.unique_key == key), None)
            expected = holder if until > self.now else live
            try:
                job = run(self.client, enqueue_job(SQL, _keyed(key, mode, 0, PERIOD)))
            except UniqueKeyTaken as taken:
                assert mode == "raise"
                assert taken.job_id == expected  # noqa: PT017 - one of several endings
                # The refusal rolls the period back, too.
                return
            assert mode != "raise" or expected is None
            assert (expected is None) == (job.id not in self.enqueued)
            assert expected in {None, job.id}
            if until <= self.now:
                self.periods[key] = (self.now + timedelta(seconds=PERIOD), job.id)
            self.enqueued.add(job.id)

    @precondition(lambda self: not self.open_ids)
    @rule(key=st.sampled_from(("k1", "k2", None)))
    def enqueue_and_leave_open(self, key: str | None) -> None:
        with self.step():
            self.open.execute("begin")
            job = run(self.open, enqueue_job(SQL, _keyed(key, "skip", 0)))
            self.open_ids = {job.id}

    @precondition(lambda self: self.open_ids)
    @rule(commit=st.booleans())
    def end_the_open_one(self, *, commit: bool) -> None:
        with self.step():
            self.open.execute("commit" if commit else "rollback")
            if commit:
                self.enqueued |= self.open_ids
            self.open_ids = set()

    # -- workers ---------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 6)
    @rule()
    def a_worker_comes(self) -> None:
        with self.step():
            self._add_worker()

    @rule(data=st.data())
    def a_worker_beats(self, data: st.DataObject) -> None:
        with self.step():
            worker = data.draw(st.sampled_from(self.workers), "worker")
            started = [job.id for job in self.held if job.worker_id == worker.id]
            worker.beating = run(worker.connection, beat(SQL, worker.id, started))
            if not worker.beating:
                self.workers.remove(worker)
                self._add_worker()

    @rule(
        data=st.data(),
        limit=st.integers(1, 5),
        lost=st.sampled_from((False, False, False, True)),
        suspects=st.booleans(),
    )
    def claim(self, data: st.DataObject, *, limit: int, lost: bool, suspects: bool) -> None:
        with self.step("claim"):
            worker = data.draw(st.sampled_from(self.workers), "worker")
            tasks = data.draw(st.sampled_from((("known",), TASKS)), "tasks")
            lanes = [Lane(*lane) for lane in run(worker.connection, find_lanes(SQL))]
            if not lanes:
                return
            lease = new_lease()
            statement = claim_jobs(
                SQL, lanes, tasks, worker_id=worker.id, lease=lease, limit=limit, suspects=suspects
            )
            claimed = claimed_of_rows(lease, run(worker.connection, _one(statement)))
            eligible = self._eligible(tasks, suspects=suspects)
            ids = {job.id for job in claimed.jobs}
            assert ids <= eligible
            if not self.open_ids:  # which may hold a row locked that the claim passes by
                assert len(ids) == min(limit, len(eligible)), "a due job was not claimed"
            for job in claimed.jobs:
                assert job.attempt == self.before[job.id].attempt + 1
            if not lost:
                self.held += claimed.jobs

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(("complete", "fail", "snooze", "hand back", "stop")))
    def end_jobs(self, data: st.DataObject, how: str) -> None:
        with self.step("finish", "requeue"):
            jobs = self._draw_held(data)
            outcomes = [_outcome(job, how) for job in jobs]
            statements = outcome_statements(SQL, outcomes)
            replies = run(self.operator, _batch(statements))
            written = written_of_rows(outcomes, replies)
            expected = {job.id for job in jobs if self._is_current(job)}
            assert written.applied == expected, "a write must count exactly when its lease does"
            type(self).lost_writes += len(written.lost)
            self._forget(jobs, data)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), own_commit=st.sampled_from((False, False, False, True)))
    def end_in_a_transaction(self, data: st.DataObject, *, own_commit: bool) -> None:
        with self.step("finish"):
            (job,) = self._draw_held(data, 1)
            lease = job.lease or 0
            expected = self._is_current(job)
            connection = self.client
            connection.execute("begin")
            ((began,),) = connection.execute("select transaction_timestamp()").fetchall()
            connection.execute("insert into public.effects values (%s, %s)", [job.id, lease])
            if own_commit:
                connection.execute("rollback; begin")
            try:
                ended = Ended(job.id, lease, State.COMPLETED, "1")
                ours = run(connection, finish_within(SQL, ended, began))
            except TransactionEnded:
                ours = False
                assert own_commit
            connection.execute("commit" if ours else "rollback")
            assert ours == (expected and not own_commit)
            if ours:
                self.effects_expected.add((job.id, lease))
            self._forget([job], data)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), percent=st.integers(0, 100))
    def say_progress(self, data: st.DataObject, percent: int) -> None:
        with self.step():
            (job,) = self._draw_held(data, 1)
            note = Progress(job.id, job.lease or 0, percent, "")
            (statement,) = note_statements(SQL, [note], 0.0)
            cursor = self.client.execute(statement.text, statement.params)
            assert cursor.rowcount == int(self._is_current(job))

    # -- duties, in one go or left in the middle -----------------------------------------

    @rule()
    def rescue(self) -> None:
        with self.step("rescue"):
            silent = self._silent()
            rescued = run(self.operator, rescue_jobs(SQL, TIMEOUT))
            taken = {job_id for one in rescued for job_id in one.job_ids}
            expected = {
                job_id
                for job_id, row in self.before.items()
                if row.state == "running" and row.worker_id in silent
            }
            assert taken == expected

    @precondition(lambda self: any(self._is_current(job) for job in self.held))
    @rule(data=st.data())
    def rob(self, data: st.DataObject) -> None:
        """A worker falls silent, is rescued from, and goes on believing; another takes its jobs."""
        with self.step("rescue", "claim"):
            current = [job for job in self.held if self._is_current(job)]
            job = data.draw(st.sampled_from(current), "victim's job")
            self.operator.execute(
                "update pgqueue.workers set heartbeat_at = %s where id = %s",
                [self.now - timedelta(seconds=2 * TIMEOUT), job.worker_id],
            )
            run(self.operator, rescue_jobs(SQL, TIMEOUT))
            self._add_worker()
            lanes = [Lane(*lane) for lane in run(self.operator, find_lanes(SQL))]
            statement = claim_jobs(
                SQL,
                lanes,
                TASKS,
                worker_id=self.workers[-1].id,
                lease=(lease := new_lease()),
                limit=50,
                suspects=True,
            )
            self.held += claimed_of_rows(lease, run(self.operator, _one(statement))).jobs

    @rule(data=st.data())
    def hand_back_what_was_lost(self, data: st.DataObject) -> None:
        with self.step("strays"):
            worker = data.draw(st.sampled_from(self.workers), "worker")
            strays = run(worker.connection, hand_back_strays(SQL, worker.id, self._hand(worker)))
            for job_id in strays:
                row = self.before[job_id]
                assert row.state == "running"
                assert row.worker_id == worker.id
                assert not any(self._is_current(job) for job in self.held if job.id == job_id)

    @precondition(lambda self: len(self.midway) < 3)
    @rule(data=st.data(), verb=st.sampled_from(("rescue", "strays", "expire", "cancel")))
    def begin_a_verb(self, data: st.DataObject, verb: str) -> None:
        with self.step():
            steps: Steps[Any]
            if verb == "rescue":
                steps = rescue_jobs(SQL, TIMEOUT)
            elif verb == "strays":
                worker = data.draw(st.sampled_from(self.workers), "worker")
                steps = hand_back_strays(SQL, worker.id, self._hand(worker))
            elif verb == "expire":
                steps = end_expired(SQL)
            else:
                ids = data.draw(st.lists(st.sampled_from(sorted(self.enqueued) or [0])), "ids")
                steps = cancel_jobs(SQL, ids)
            try:
                self.midway.append((verb, steps, next(steps), self.operator))
            except StopIteration:
                return

    @precondition(lambda self: self.midway)
    @rule(data=st.data())
    def go_on_with_a_verb(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.midway) - 1), "which")
        verb, steps, asked, connection = self.midway.pop(place)
        with self.step(verb, "cancel" if verb == "expire" else verb):
            reply = _answer(connection, asked)
            try:
                self.midway.append((verb, steps, steps.send(reply), connection))
            except StopIteration:
                return

    @rule()
    def expire(self) -> None:
        with self.step("expire"):
            ended = run(self.operator, end_expired(SQL))
            late = [
                row
                for row in self.before.values()
                if row.state == "queued" and row.expires_at and row.expires_at <= self.now
            ]
            assert ended == len(late)

    # -- operators and time --------------------------------------------------------------

    @precondition(lambda self: self.enqueued)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        with self.step("cancel"):
            ids = data.draw(
                st.lists(st.sampled_from(sorted(self.enqueued)), max_size=3, unique=True), "ids"
            )
            cancelled = run(self.operator, cancel_jobs(SQL, ids))
            states = {i: self.before[i].state if i in self.before else "gone" for i in ids}
            assert set(cancelled.ended) == {i for i in ids if states[i] == "queued"}
            assert set(cancelled.marked) == {i for i in ids if states[i] == "running"}
            assert set(cancelled.missing) == {i for i in ids if states[i] == "gone"}

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause_or_resume(self, queue: str, *, paused: bool) -> None:
        with self.step():
            self.operator.execute(
                "insert into pgqueue.queues (name, paused) values (%s, %s) "
                "on conflict (name) do update set paused = excluded.paused",
                [queue, paused],
            )

    @rule(seconds=st.sampled_from((1.0, 10.0, 16.0, 25.0, 61.0, 40_000.0, -1.0, -20.0)))
    def move_the_clock(self, seconds: float) -> None:
        with self.step():
            self.now += timedelta(seconds=seconds)
            self.watch.execute("update public.test_clock set at = %s", [self.now])
            self.watch.execute("select pgqueue.make_partitions()")

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def a_worker_leaves(self, data: st.DataObject) -> None:
        with self.step():
            worker = data.draw(st.sampled_from(self.workers), "worker")
            holds = any(row.worker_id == worker.id for row in self.before.values())
            ((known,),) = self.watch.execute(
                "select count(*) from pgqueue.workers where id = %s", [worker.id]
            ).fetchall()
            forgotten = run(self.operator, forget_worker(SQL, worker.id))
            assert forgotten == (known == 1 and not holds)
            if not holds:
                self.workers.remove(worker)


def _keyed(key: str | None, mode: str, n: int, period: float | None = None) -> NewJob:
    return NewJob(
        "known",
        "a",
        {"n": n},
        unique_key=key,
        unique_mode=mode,
        unique_for=period,
        unique_wait=0.1,
    )


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


def _one(statement: Any) -> Steps[Any]:
    return (yield statement)


def _batch(statements: list[Any]) -> Steps[Any]:
    return (yield Batch(tuple(statements)))

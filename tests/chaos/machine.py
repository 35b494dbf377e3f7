"""A state machine that drives the engine's verbs over several connections, with a model beside it.

Time stands still between steps and is moved by rules. Verbs are generators, so some of them are
left in the middle and go on later: other steps come in between.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model import Beat
from working import Working
from world import SQL, TASKS, TIMEOUT, Midway, Worker

from pgqueue.db.run import Statement, Steps, run
from pgqueue.engine.cancel import cancel_jobs, end_expired
from pgqueue.engine.rescue import beat, forget_worker, hand_back_strays, rescue_jobs


class QueueMachine(Working):
    """Time, duties and stories; how jobs come, run and are operated on stands beside."""

    @rule(seconds=st.sampled_from((1.0, 10.0, 16.0, 16.0, 25.0, 61.0, 40_000.0, -1.0, -20.0)))
    def move_the_clock(self, seconds: float) -> None:
        self._move_the_clock(seconds)

    # -- workers come, beat and go -----------------------------------------------------

    @precondition(lambda self: len(self.workers) < 6)
    @rule()
    def a_worker_comes(self) -> None:
        self._add_worker()

    @rule(data=st.data())
    def a_worker_beats(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        hand = sorted(self._hand(worker).job_ids)
        # What lies in its buffer has not started: a death is not charged to it.
        count = data.draw(st.integers(0, len(hand)), "started")
        self._beat(worker, hand[:count])

    def _beat(self, worker: Worker, started: list[int]) -> None:
        with self.step("beat") as model:
            lives = run(worker.connection, beat(SQL, worker.id, started))
            assert lives == (worker.id in model.workers)
            if lives:
                model.workers[worker.id] = Beat(model.now, frozenset(started))
        if not lives:
            self.workers.remove(worker)
            self._add_worker()

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def a_worker_leaves(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        with self.step("leave") as model:
            forgotten = run(self.operator, forget_worker(SQL, worker.id))
            assert forgotten == model.forget(worker.id)
        if forgotten:
            self.workers.remove(worker)

    # -- duties, in one go or left in the middle -----------------------------------------

    @rule()
    def rescue(self) -> None:
        self._carry_out(rescue_jobs(SQL, TIMEOUT))

    @precondition(lambda self: not self.exchange)
    @rule()
    def expire(self) -> None:
        self._carry_out(end_expired(SQL))

    @rule(data=st.data(), reply=st.sampled_from(("comes", "lost", "under way")))
    def hand_back_what_was_lost(self, data: st.DataObject, reply: str) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        if data.draw(st.booleans(), "claims before"):
            self._claim(worker, self.model.lanes(), TASKS, limit=2, reply=reply)
            self._move_the_clock(1.0)
        self._carry_out(hand_back_strays(SQL, worker.id, lambda: self._hand(worker)))

    @precondition(lambda self: len(self.midway) < 3)
    @rule(data=st.data(), verb=st.sampled_from(("rescue", "rescue", "strays", "expire", "cancel")))
    def begin_a_verb(self, data: st.DataObject, verb: str) -> None:
        steps: Steps[Any]
        if verb == "rescue":
            steps = rescue_jobs(SQL, TIMEOUT)
        elif verb == "strays":
            of = data.draw(st.sampled_from(self.workers), "worker")
            steps = hand_back_strays(SQL, of.id, lambda: self._hand(of))
        elif verb == "expire":
            steps = end_expired(SQL)
        else:
            ids = st.lists(st.sampled_from(sorted(self.model.jobs) or [0]), max_size=3)
            steps = cancel_jobs(SQL, data.draw(ids, "ids"))
        try:
            midway = Midway(steps, next(steps))
        except StopIteration:
            return
        # What it finds first is what it goes by later.
        if isinstance(midway.asked, Statement) and midway.asked.text != SQL["cancel_jobs"]:
            self._go_on(midway)
        else:
            self.midway.append(midway)

    @precondition(lambda self: self.midway and not self.exchange)
    @rule(data=st.data())
    def go_on_with_a_verb(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.midway) - 1), "which")
        self._go_on(self.midway.pop(place))

    def _go_on(self, midway: Midway) -> None:
        try:
            midway.asked = midway.steps.send(self._answer(midway.asked))
        except StopIteration:
            return
        self.midway.append(midway)

    def _carry_out(self, steps: Steps[Any]) -> None:
        try:
            asked = next(steps)
            while True:
                asked = steps.send(self._answer(asked))
        except StopIteration:
            return

    # -- stories that chance alone would tell too seldom ----------------------------------

    @precondition(lambda self: not self.exchange)
    @rule(data=st.data(), buffered=st.booleans())
    def rob(self, data: st.DataObject, *, buffered: bool) -> None:
        """A worker falls silent, is rescued from, and goes on believing; another takes its jobs."""
        self._need_held()
        current = [job for job in self.held if self._is_current(job)]
        job = data.draw(st.sampled_from(current), "victim's job")
        worker = next((one for one in self.workers if one.id == job.worker_id), None)
        if worker is not None and worker.id in self.model.workers:
            self._move_the_clock(1.0)
            self._beat(worker, [] if buffered else sorted(self._hand(worker).job_ids))
        self._move_the_clock(2 * TIMEOUT)
        self._carry_out(rescue_jobs(SQL, TIMEOUT))
        suspects = data.draw(st.booleans(), "takes suspects")
        self._claim(self._add_worker(), self.model.lanes(), TASKS, limit=50, suspects=suspects)

    @precondition(lambda self: not self.exchange)
    @rule(data=st.data())
    def wake_up_in_the_middle_of_a_rescue(self, data: st.DataObject) -> None:
        """A worker is found silent, and beats before its jobs are taken."""
        self._need_held()
        current = [job for job in self.held if self._is_current(job)]
        job = data.draw(st.sampled_from(current), "sleeper's job")
        worker = next((one for one in self.workers if one.id == job.worker_id), None)
        self._move_the_clock(2 * TIMEOUT)
        steps = rescue_jobs(SQL, TIMEOUT)
        midway = Midway(steps, next(steps))
        self._go_on(midway)
        if worker is not None and worker.id in self.model.workers:
            self._beat(worker, [])
        if midway in self.midway:
            self.midway.remove(midway)
            self._go_on(midway)

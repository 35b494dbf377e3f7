"""Rules of the state machine: how jobs come."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model import PERIOD, Model, Row
from world import QUEUES, SQL, TASKS, World, later

from pgqueue.db.run import run
from pgqueue.engine.enqueue import enqueue_job, enqueue_jobs
from pgqueue.errors import UniqueKeyBusy, UniqueKeyTaken
from pgqueue.job import NewJob

MODES = ("skip", "replace", "raise")
KEYS = ("k1", "k2", "k3")
PERIOD_KEYS = ("p1", "p2")


class Enqueuing(World):
    """One at a time, many, with keys, with periods, in transactions that stay open."""

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 5, 9)),
        wait=st.sampled_from((0.0, 0.0, 20.0, -100.0)),
        task=st.sampled_from(TASKS),
        attempts=st.integers(1, 3),
        expires=st.sampled_from((None, None, 30.0)),
        many=st.integers(1, 4),
    )
    def enqueue(
        self, expires: float | None, many: int, attempts: int, wait: float, **given: Any
    ) -> None:
        now = self.model.now
        new = NewJob(
            payload={},
            max_attempts=attempts,
            expires_at=None if expires is None else later(now, expires),
            run_at=later(now, wait),
            **given,
        )
        self._enqueue(new, many)

    def _enqueue(self, new: NewJob, many: int) -> None:
        with self.step("enqueue") as model:
            if many == 1:
                ids = [run(self.client, enqueue_job(SQL, new)).id]
            else:
                ids = run(self.client, enqueue_jobs(SQL, [new] * many))
            assert ids == sorted(set(ids))
            assert not set(ids) & model.jobs.keys()
            model.jobs.update({job_id: _row_of(new, model) for job_id in ids})

    @rule(
        key=st.sampled_from(KEYS),
        mode=st.sampled_from(MODES),
        n=st.integers(0, 99),
        delay=st.sampled_from((0.0, 0.0, 20.0)),
    )
    def enqueue_keyed(self, key: str, mode: str, n: int, delay: float) -> None:
        with self.step(f"enqueue-{mode}") as model:
            holder = model.holder(key)
            new = _keyed(key, mode, n, delay=delay)
            try:
                job = run(self.client, enqueue_job(SQL, new))
            except UniqueKeyBusy:
                assert self._is_open(key, holder), "busy, and nobody has a transaction open"
                return
            except UniqueKeyTaken as taken:
                assert mode == "raise"
                assert taken.job_id == holder  # noqa: PT017 - one of several endings
                return
            assert mode != "raise" or holder is None
            self._met(job.id, holder, new)

    def _met(self, job_id: int, holder: int | None, new: NewJob) -> None:
        """A job came back from a keyed enqueue; `holder` had the key before."""
        model, is_debounce = self.model, new.unique_mode == "replace"
        if holder is not None and is_debounce and model.jobs[holder].state == "running":
            # The running one gives the key up, for the newer event must not be lost.
            model.jobs[holder] = _changed(model.jobs[holder], unique_key=None)
            holder = None
        if holder is None:
            assert job_id not in model.jobs
            model.jobs[job_id] = _row_of(new, model)
            return
        assert job_id == holder
        if is_debounce:
            at = later(model.now, new.delay)
            # Without a time of its own it leaves the job's time alone.
            times = {"run_at": at, "scheduled_at": at} if new.delay else {}
            row = _changed(model.jobs[holder], payload=dict(new.payload), **times)
            model.jobs[holder] = row

    def _is_open(self, key: str, holder: int | None) -> bool:
        return holder in self.locked or any(
            row.unique_key == key for row in self.open_jobs.values()
        )

    @precondition(lambda self: not self.exchange)
    @rule(key=st.sampled_from(PERIOD_KEYS), mode=st.sampled_from(MODES), n=st.integers(0, 99))
    def enqueue_for_a_period(self, key: str, mode: str, n: int) -> None:
        with self.step(f"period-{mode}") as model:
            held, until = model.periods.get(key, (0, model.now))
            live = model.holder(key)
            expected = held if until > model.now else live
            new = _keyed(key, mode, n, period=PERIOD)
            try:
                job = run(self.client, enqueue_job(SQL, new))
            except UniqueKeyTaken as taken:
                assert mode == "raise"
                assert taken.job_id == expected  # noqa: PT017 - one of several endings
                # The refusal rolls the period back, too.
                return
            assert mode != "raise" or expected is None
            if until <= model.now:
                model.periods[key] = (job.id, later(model.now, PERIOD))
            if expected is None:
                self._met(job.id, None, new)
                return
            assert job.id == expected
            if mode == "replace" and model.jobs[expected].state == "queued":
                self._met(job.id, expected, new)

    @precondition(lambda self: not self.open_jobs)
    @rule(key=st.sampled_from(("k1", "k2", None)))
    def enqueue_and_leave_open(self, key: str | None) -> None:
        if key is not None and self.model.holder(key) in self.locked:
            return
        with self.step("open"):
            self.open.execute("begin")
            new = _keyed(key, "skip", 0)
            job = run(self.open, enqueue_job(SQL, new))
            if job.id not in self.model.jobs:
                self.open_jobs = {job.id: _row_of(new, self.model)}
            else:
                self.open.execute("rollback")

    @precondition(lambda self: self.open_jobs)
    @rule(commit=st.booleans())
    def end_the_open_one(self, *, commit: bool) -> None:
        with self.step("commit") as model:
            self.open.execute("commit" if commit else "rollback")
            if commit:
                model.jobs.update(self.open_jobs)
            self.open_jobs = {}


def _row_of(new: NewJob, model: Model) -> Row:
    asked = new.run_at or later(model.now, new.delay)
    return Row(
        "queued",
        new.task,
        new.queue,
        new.priority,
        dict(new.payload),
        new.unique_key,
        max(asked, model.now),
        asked,
        0,
        new.max_attempts,
        new.expires_at,
    )


def _changed(row: Row, **changes: Any) -> Row:
    return Row(**{**vars(row), **changes})


def _keyed(
    key: str | None, mode: str, n: int, *, period: float | None = None, delay: float = 0.0
) -> NewJob:
    return NewJob(
        "known",
        "a",
        {"n": n},
        unique_key=key,
        unique_mode=mode,
        unique_for=period,
        delay=delay,
        unique_wait=0.1,
    )

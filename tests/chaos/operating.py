"""Rules of the state machine: what operators do."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from world import OPERATOR, QUEUES, SQL, World

from pgqueue.db.run import run
from pgqueue.engine.cancel import cancel_jobs
from pgqueue.engine.delete import delete_jobs
from pgqueue.engine.queues import pause_queue, resume_queue
from pgqueue.engine.retry_jobs import retry_jobs

TRIES = {"known": 2}


class Operating(World):
    """Cancel, retry, delete, pause; each leaves a line in the audit log, or did nothing."""

    def _draw_ids(self, data: st.DataObject, *states: str) -> list[int]:
        # Half of the draws aim at jobs that the deed is meant for.
        aimed = sorted(self.model.of_state(*states))
        ids = aimed if aimed and data.draw(st.booleans(), "aims") else sorted(self.model.jobs)
        return data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True), "ids")

    @precondition(lambda self: self.model.jobs and not self.exchange)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ids = self._draw_ids(data, "running")
        with self.step("cancel") as model:
            done = run(self.operator, cancel_jobs(SQL, [*ids, 10**6], OPERATOR))
            became = model.cancel(ids)
            assert set(done.ended) == {i for i, what in became.items() if what == "cancelled"}
            assert set(done.marked) == {i for i, what in became.items() if what == "marked"}
            assert set(done.missing) == {10**6, *ids} - became.keys()
            model.deeds += ["cancel"] * bool(became)

    def _retry(self, data: st.DataObject) -> None:
        ids = self._draw_ids(data, "failed", "cancelled")
        with self.step("retry") as model:
            done = run(self.operator, retry_jobs(SQL, [*ids, 10**6], OPERATOR, TRIES))
            live, completed = model.live(), model.of_state("completed")
            hurried = model.hurry(ids)
            back, refused = model.revive(ids, TRIES)
            assert (set(done.hurried), set(done.retried)) == (hurried, back)
            assert done.refused.keys() == refused | (completed & set(ids))
            assert set(done.live) == (live & set(ids)) - hurried
            assert done.missing == (10**6,)
            model.deeds += ["run-now"] * bool(hurried) + ["retry"] * bool(back)

    @precondition(lambda self: self.model.jobs and not self.exchange)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ids = self._draw_ids(data, "running", "completed")
        with self.step("delete") as model:
            done = run(self.operator, delete_jobs(SQL, ids[:2], OPERATOR))
            gone = model.delete(ids[:2])
            assert set(done.deleted) == gone
            assert set(done.running) == set(ids[:2]) - gone
            model.deeds += ["delete"] * bool(gone)

    @rule(queue=st.sampled_from(QUEUES), paused=st.sampled_from((True, False, False)))
    def pause_or_resume(self, queue: str, *, paused: bool) -> None:
        self._pause_or_resume(queue, paused=paused)

    def _pause_or_resume(self, queue: str, *, paused: bool) -> None:
        with self.step("pause" if paused else "resume") as model:
            if paused:
                changed = run(self.operator, pause_queue(SQL, queue, OPERATOR, "because"))
                assert changed == (queue not in model.paused)
                model.paused.add(queue)
            else:
                changed = run(self.operator, resume_queue(SQL, queue, OPERATOR))
                assert changed == (queue in model.paused)
                model.paused.discard(queue)
            model.deeds += ["pause" if paused else "resume"] * changed

"""Random graphs end as their policies say, whatever ends how and whoever dies meanwhile."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endings import end
from pgqueue import PgQueue, WorkflowRun
from proving import rows, until
from workflows.dags import assert_consistent, random_workflow
from workflows.flows import Stepped, job, passed


class _Story:
    """One workflow, brought to its end by hand: endings, deeds of operators, passes that die."""

    def __init__(self, pgq: PgQueue, url: str, size: int, rand: random.Random) -> None:
        self.pgq, self.url, self.rand = pgq, url, rand
        rows(url, "truncate pgqueue.jobs, pgqueue.finished_jobs")
        self.made: WorkflowRun = random_workflow(pgq, size, rand, lambda n: job(n=n)).enqueue()
        self.parents = {
            node["name"]: node["after"] for node in pgq.show_workflow(self.made.id)["graph"]
        }
        self.names = {job_id: name for name, job_id in self.made.jobs.items()}
        self.ended_by_hand: set[str] = set()
        self.open: list[Stepped] = []

    def live(self, *states: str) -> list[int]:
        query = "select id from pgqueue.jobs where state = any(%s) order by id"
        return [job_id for (job_id,) in rows(self.url, query, [list(states)])]

    def end_some(self) -> None:
        queued = self.live("queued")
        if not queued:
            return
        some = self.rand.sample(queued, self.rand.randint(1, len(queued)))
        live = {self.names[job_id] for job_id in self.live("queued", "waiting")}
        for job_id in some:
            assert live.isdisjoint(self.parents[self.names[job_id]]), "it went before its parents"
        state = self.rand.choice(["completed", "completed", "completed", "failed", "cancelled"])
        end(self.url, *some, state=state)

    def act(self) -> None:
        """An operator cancels or deletes a job, wherever it is."""
        while any(one.step() for one in self.open):
            pass  # he would wait for their locks, and they for us
        if found := self.live("queued", "waiting"):
            job_id = self.rand.choice(found)
            self.ended_by_hand.add(self.names[job_id])
            self.rand.choice([self.pgq.cancel, self.pgq.delete])(job_id)

    def step(self) -> None:
        """A pass goes on a little, beside others, or dies where it is."""
        if len(self.open) < 3:
            self.open.append(Stepped(self.pgq, self.made.id))
        one = self.rand.choice(self.open)
        is_under_way = all(one.step() for _ in range(self.rand.randint(1, 12)))
        if not is_under_way or self.rand.random() < 0.2:
            one.cut()
            self.open.remove(one)

    def close(self) -> None:
        for one in self.open:
            one.cut()

    def finish(self) -> None:
        self.close()
        while True:
            until(lambda: not passed(self.pgq).left)
            if not self.live("queued", "waiting"):
                return
            self.end_some()


def _tell(pgq: PgQueue, url: str, seed: int, size: int) -> None:
    rand = random.Random(seed)  # noqa: S311 - repeatable
    story = _Story(pgq, url, size, rand)
    deeds = [story.end_some] * 3 + [story.step] * 6 + [story.act] * (rand.random() < 0.3)
    try:
        for _ in range(30):
            rand.choice(deeds)()
    finally:
        story.close()
    story.finish()
    assert_consistent(pgq, url, story.made, frozenset(story.ended_by_hand))


OFTEN = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(OFTEN, max_examples=8)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 50))
def test_whatever_happens_exactly_the_right_nodes_run(
    pgq: PgQueue, database: str, seed: int, size: int
) -> None:
    _tell(pgq, database, seed, size)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(OFTEN, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 200))
def test_whatever_happens_in_large_graphs_exactly_the_right_nodes_run(
    pgq: PgQueue, database: str, seed: int, size: int
) -> None:
    _tell(pgq, database, seed, size)

"""Whole workers die or freeze in the middle of steps: nothing that was kept is done twice, and
nothing is kept by who has lost its job."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest
from processes import QUICK, Processes

from proving import rows, states, until, value

EFFECTS = "create table effects (job_id bigint, step int, attempt int)"
IN_STEPS = (
    "select count(*) from pgqueue.jobs join pgqueue.workers on workers.id = jobs.worker_id "
    "where workers.pid = %s and jobs.state = 'running' and not jobs.suspect "
    "and (select count(*) from pgqueue.job_steps where job_id = jobs.id) between 1 and 4"
)
REPEATED = (
    "select job_id, step from effects join pgqueue.finished_jobs on id = job_id "
    "where step % 2 = 0 or task <> 'five' group by 1, 2 having count(*) <> 1"
)
LATER = (
    "select effects.job_id from effects join pgqueue.job_steps as kept "
    "on kept.job_id = effects.job_id and kept.name = 'step-' || step "
    "where effects.attempt > kept.attempt"
)
OPEN = "select count(*) from pgqueue.jobs"
INSERT = (
    "insert into pgqueue.jobs (task, queue, payload, max_attempts) "
    "select (array['five', 'five-in-a-thread', 'five-of-many'])[1 + n %% 3], 'default', '{}', 100 "
    "from generate_series(1, %s) as n"
)


@dataclass(frozen=True)
class Trial:
    handlers: int
    """So many handlers die at least, between their first step and their last."""
    concurrency: int
    workers: int
    patience: float


class _Fleet:
    """Workers that are killed one by one, and started anew."""

    def __init__(self, database: str, processes: Processes, trial: Trial) -> None:
        self.database, self.processes, self.trial = database, processes, trial
        self.rand = random.Random(7)  # noqa: S311 - repeatable
        self.workers = [self._start() for _ in range(trial.workers)]
        self.kills = self.died = self.jobs = 0

    def _start(self) -> subprocess.Popen[str]:
        own = {**QUICK, "PGQUEUE_APP": "five_steps_app:pgq"}
        slots = str(self.trial.concurrency)
        return self.processes.pgq(self.database, "worker", "--concurrency", slots, **own)

    def top_up(self) -> None:
        """As many jobs as keep every slot at work."""
        missing = 2 * self.trial.concurrency * self.trial.workers - value(self.database, OPEN)
        if missing > 0:
            rows(self.database, INSERT, [missing])
            self.jobs += missing

    def kill_one(self) -> None:
        """At some moment, if it is in the middle of steps."""
        place = self.rand.randrange(len(self.workers))
        worker = self.workers[place]
        assert worker.poll() is None, f"a worker left by itself\n{self.processes.said[-3000:]}"
        # The only suspect of three dead workers would be put aside: not what is tried here.
        rows(self.database, "update pgqueue.jobs set crashes = 0 where crashes > 0")
        time.sleep(self.rand.uniform(0, 0.05))
        if in_steps := value(self.database, IN_STEPS, [worker.pid]):
            worker.kill()
            worker.communicate()
            self.kills, self.died = self.kills + 1, self.died + in_steps
            self.workers[place] = self._start()

    def assert_all_done_once(self) -> None:
        errors = "select task, errors -> -1 from pgqueue.finished_jobs where state = 'failed'"
        assert rows(self.database, errors) == []
        assert states(self.database) == {"completed": self.jobs}
        kept = value(self.database, "select count(*) from pgqueue.job_steps")
        did = value(self.database, "select count(distinct (job_id, step)) from effects")
        assert (kept, did) == (5 * self.jobs, 5 * self.jobs)
        assert rows(self.database, REPEATED) == [], "with its checkpoint in one commit: once"
        assert rows(self.database, LATER) == [], "a step was done again that had its checkpoint"
        results = "select distinct result from pgqueue.finished_jobs"
        assert rows(self.database, results) == [([0, 10, 20, 30, 40],)]


def _run(trial: Trial, database: str, processes: Processes) -> None:
    rows(database, EFFECTS)
    fleet = _Fleet(database, processes, trial)
    began = time.monotonic()
    while fleet.died < trial.handlers:
        assert time.monotonic() - began < trial.patience, (fleet.kills, fleet.died)
        fleet.top_up()
        fleet.kill_one()
    until(lambda: not value(database, OPEN), trial.patience)
    fleet.assert_all_done_once()
    print(  # noqa: T201
        f"{fleet.jobs} jobs, {fleet.kills} workers killed with {fleet.died} handlers in their "
        f"steps, {time.monotonic() - began:.1f} s"
    )


def test_a_killed_workers_handlers_go_on_behind_their_last_step(
    database: str, processes: Processes
) -> None:
    _run(Trial(handlers=2, concurrency=2, workers=2, patience=60), database, processes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_handlers_of_killed_workers_lose_no_step_and_repeat_none(
    database: str, processes: Processes
) -> None:
    _run(Trial(handlers=200, concurrency=10, workers=3, patience=400), database, processes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_frozen_workers_handlers_keep_nothing_when_it_comes_back(
    database: str, processes: Processes
) -> None:
    rows(database, EFFECTS)
    fleet = _Fleet(database, processes, Trial(handlers=1, concurrency=4, workers=2, patience=60))
    frozen = fleet.workers[0]
    for _ in range(5):
        fleet.top_up()
        until(lambda: value(database, IN_STEPS, [frozen.pid]), 60)
        frozen.send_signal(signal.SIGSTOP)
        held = rows(
            database,
            "select jobs.id from pgqueue.jobs join pgqueue.workers on workers.id = worker_id "
            "where pid = %s",
            [frozen.pid],
        )
        ids = [job_id for (job_id,) in held]
        done = "select count(*) from pgqueue.finished_jobs where id = any(%s)"
        until(lambda: value(database, done, [ids]) == len(ids), 60)  # noqa: B023
        frozen.send_signal(signal.SIGCONT)
        # It is seen to work again, and what it held is not touched any more.
        fleet.top_up()
        until(lambda: value(database, IN_STEPS, [frozen.pid]), 60)
    until(lambda: not value(database, OPEN), 120)
    fleet.assert_all_done_once()

"""Workers die by SIGKILL in the middle of workflows: exactly the right nodes run, and once."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass

import pytest
from processes import QUICK, Processes

from pgqueue import PgQueue, WorkflowRun
from pgqueue.job import NewJob
from proving import rows, value
from workflows.dags import assert_consistent, random_workflow

OPEN = "select count(*) from pgqueue.workflows where outcome is null"
RUNS = (
    "select count(*) from pgqueue.jobs join pgqueue.workers on workers.id = jobs.worker_id "
    "where workers.pid = %s and not jobs.suspect"
)


@dataclass(frozen=True)
class Trial:
    sizes: tuple[int, ...]
    kill_every: float
    kills: int
    patience: float


def _run(trial: Trial, database: str, processes: Processes) -> None:
    rand = random.Random(11)  # noqa: S311 - repeatable
    app = PgQueue(database)
    made = [_enqueued(app, size, rand) for size in trial.sizes]

    def start() -> subprocess.Popen[str]:
        own = {**QUICK, "PGQUEUE_APP": "flow_app:pgq"}
        return processes.pgq(database, "worker", "--concurrency", "4", **own)

    workers = [start() for _ in range(3)]
    began = time.monotonic()
    kills, next_kill = 0, began
    while value(database, OPEN):
        assert time.monotonic() - began < trial.patience, rows(
            database, "select state, count(*) from pgqueue.all_jobs group by 1"
        )
        for place, worker in enumerate(workers):
            assert worker.poll() is None, f"a worker left by itself\n{processes.said[-3000:]}"
            may_kill = kills < 2 * trial.kills and time.monotonic() >= next_kill
            is_due = may_kill and place == rand.randrange(3)
            if is_due and value(database, RUNS, [worker.pid]) > 0:
                worker.kill()
                worker.communicate()
                kills, next_kill = kills + 1, time.monotonic() + trial.kill_every
                workers[place] = start()
        time.sleep(0.02)
    print(f"{len(made)} workflows, {kills} kills, {time.monotonic() - began:.1f} s")  # noqa: T201
    assert kills >= trial.kills, "too few kills to prove anything"
    for one in made:
        assert_consistent(app, database, one)
        assert_effects(database, one)
    app.close()


def assert_effects(database: str, made: WorkflowRun) -> None:
    """Who completed left its effect once, callbacks included; nobody else left any."""
    doubtful = rows(
        database,
        "select nodes.name, outcome, count(effects.job_id) from pgqueue.workflow_nodes as nodes "
        "left join effects using (job_id) where workflow_id = %s group by 1, 2 "
        "having count(effects.job_id) <> case outcome when 'completed' then 1 else 0 end",
        [made.id],
    )
    assert doubtful == []


def _enqueued(app: PgQueue, size: int, rand: random.Random) -> WorkflowRun:
    def make(_: int) -> NewJob:
        payload = {"ms": rand.randint(1, 80), "fails": rand.random() < 0.1}
        return NewJob(task="node", queue="default", payload=payload)

    return random_workflow(app, size, rand, make).enqueue()


def test_a_few_kills_in_workflows_lose_and_double_nothing(
    effects: str, processes: Processes
) -> None:
    _run(Trial(sizes=(40, 60, 80), kill_every=0.5, kills=2, patience=60), effects, processes)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_large_workflows_lose_and_double_nothing(
    effects: str, processes: Processes
) -> None:
    """Few kills for so many jobs: who was in the hands of the killed runs one at a time."""
    sizes = tuple(range(155, 201, 5))
    _run(Trial(sizes=sizes, kill_every=1.0, kills=6, patience=500), effects, processes)

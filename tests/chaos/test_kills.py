"""Workers die by SIGKILL at any moment: every job completes, its effect is there exactly once."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass

import pytest
from processes import QUICK, Processes

from pgqueue import PgQueue
from proving import rows, states, until, value

HELD_BY = (
    "select count(*) from pgqueue.jobs join pgqueue.workers on workers.id = jobs.worker_id "
    "where workers.pid = %s and not jobs.suspect"
)

SUCCESSORS = (
    "select count(*), count(distinct worker_id) from pgqueue.jobs "
    "where state = 'running' and worker_id <> %s"
)


@dataclass(frozen=True)
class Trial:
    jobs: int
    kill_every: float
    kills: int
    repeated: int
    patience: float


def _run(trial: Trial, database: str, processes: Processes, environment: dict[str, str]) -> None:
    rand = random.Random(4)  # noqa: S311 - repeatable
    _enqueue(database, trial.jobs, rand)

    def start() -> subprocess.Popen[str]:
        return processes.pgq(database, "worker", "--concurrency", "8", **environment)

    began = time.monotonic()
    workers = [start() for _ in range(4)]
    # A worker that has not begun yet is no loss.
    until(lambda: "completed" in states(database))
    kills, next_kill = 0, time.monotonic()
    while states(database).get("completed", 0) < trial.jobs:
        assert time.monotonic() - began < trial.patience, states(database)
        for place, worker in enumerate(workers):
            assert worker.poll() is None, f"a worker left by itself\n{processes.said[-3000:]}"
            is_due = time.monotonic() >= next_kill and kills < 3 * trial.kills
            is_next = is_due and place == rand.randrange(4)
            # On a busy machine a worker takes seconds to begin: to kill that one proves nothing.
            # Who kills every worker of the last jobs has them put into quarantine.
            if is_next and value(database, HELD_BY, [worker.pid]) > 0:
                worker.kill()
                worker.communicate()
                kills, next_kill = kills + 1, next_kill + trial.kill_every
                workers[place] = start()
        time.sleep(0.02)
    seconds = time.monotonic() - began

    repeated = value(database, "select count(*) from pgqueue.finished_jobs where attempt > 1")
    print(f"{trial.jobs} jobs, {kills} kills, {repeated} repeated, {seconds:.1f} s")  # noqa: T201
    assert kills >= trial.kills, "too few kills to prove anything"
    assert repeated >= trial.repeated, "too few repeated jobs to prove anything"
    assert states(database) == {"completed": trial.jobs}
    assert value(database, "select count(*) from effects") == trial.jobs
    assert value(database, "select count(distinct job_id) from effects") == trial.jobs


def _enqueue(database: str, jobs: int, rand: random.Random) -> None:
    app = PgQueue(database)
    for name in ("effect", "effect-sync"):
        task = app.task(name=name)(_any_length)
        task.enqueue_many({"ms": rand.randint(20, 50)} for _ in range(jobs // 2))
    app.close()


def _any_length(ms: int) -> None: ...


def test_a_few_kills_lose_and_double_nothing(effects: str, processes: Processes) -> None:
    trial = Trial(jobs=600, kill_every=0.7, kills=2, repeated=8, patience=60)
    _run(trial, effects, processes, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pace", ["quick", "default"])
def test_ten_thousand_jobs_and_fifteen_kills_lose_and_double_nothing(
    effects: str, processes: Processes, pace: str
) -> None:
    trial = Trial(jobs=10_000, kill_every=1.0, kills=15, repeated=100, patience=400)
    _run(trial, effects, processes, QUICK if pace == "quick" else {})


def test_what_a_killed_worker_held_is_due_again_for_others(
    effects: str, processes: Processes
) -> None:
    app = PgQueue(effects)
    app.task(name="sleep")(_sleep).enqueue_many([{"seconds": 60.0}] * 3)
    app.close()
    worker = processes.pgq(effects, "worker", **QUICK)
    while states(effects) != {"running": 3}:
        assert worker.poll() is None
        time.sleep(0.02)
    worker.kill()
    # A worker runs one job at a time of those that may have killed theirs: one worker for each.
    # One claim may take all three; all but one of them are given back at once.
    others = [processes.pgq(effects, "worker", **QUICK) for _ in range(3)]
    dead = value(effects, "select min(worker_id) from pgqueue.jobs")
    while rows(effects, SUCCESSORS, [dead]) != [(3, 3)]:
        assert {other.poll() for other in others} == {None}
        time.sleep(0.02)
    # The lost try is given back on top: it was the worker's fault. A worker that is too slow to
    # beat on a busy machine loses its job, too, so there may have been more than one.
    tries = rows(effects, "select attempt, max_attempts from pgqueue.jobs")
    assert all(attempt == allowed >= 2 for attempt, allowed in tries), tries


def _sleep(seconds: float) -> None: ...

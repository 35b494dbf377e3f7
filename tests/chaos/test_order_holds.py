"""Jobs of one key run one after another, whatever fails and whoever is killed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from processes import QUICK, Processes
from recording import record

from pgqueue import PgQueue
from proving import rows, states, value

# A job's next start is its own again, or that of a later one; and only after an end.
DISORDER = """
select name, at, job_id, previous_id, live
from (
  select
    name, at, job_id, change,
    lag(job_id) over (partition by name order by at, line) as previous_id,
    sum(change) over (partition by name order by at, line) as live
  from public.record
) as history
where live > 1 or (change = 1 and previous_id > job_id)
"""


@dataclass(frozen=True)
class Trial:
    keys: int
    jobs: int
    kills: int
    patience: float


@pytest.mark.timeout(180)
def test_a_few_keys_keep_their_order_over_failures_and_a_kill(
    database: str, processes: Processes
) -> None:
    _run(Trial(keys=60, jobs=6, kills=1, patience=90), database, processes)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_keys_keep_their_order_over_failures_and_kills(
    database: str, processes: Processes
) -> None:
    _run(Trial(keys=1_000, jobs=20, kills=3, patience=500), database, processes)


def _run(trial: Trial, database: str, processes: Processes) -> None:
    record(database)
    app = PgQueue(database)
    task = app.task(name="step", ordered_by="customer:{customer}")(_step)
    # Keys by turns, so that each line grows while it is worked off.
    task.enqueue_many(
        {"customer": key, "n": n} for n in range(trial.jobs) for key in range(trial.keys)
    )
    rows(database, "update pgqueue.jobs set max_attempts = 3")
    app.close()
    environment = {**QUICK, "PGQUEUE_APP": "limits_app:pgq"}
    workers = [
        processes.pgq(database, "worker", "--concurrency", "8", **environment) for _ in range(4)
    ]
    total, began, kills = trial.keys * trial.jobs, time.monotonic(), 0
    while (ended := _ended(database)) < total:
        assert time.monotonic() - began < trial.patience, states(database)
        if kills < trial.kills and ended > total * (kills + 1) / (trial.kills + 2):
            workers[kills].kill()
            kills += 1
        time.sleep(0.1)
    seconds = time.monotonic() - began

    repeated = value(database, "select count(*) from pgqueue.finished_jobs where attempt > 1")
    print(f"{total} jobs, {kills} kills, {repeated} tried again, {seconds:.1f} s")  # noqa: T201
    assert kills == trial.kills
    assert repeated > total / 20, "too few failures to prove anything"
    assert rows(database, DISORDER) == []
    assert value(database, "select count(*) from public.record where change = 1") >= total


def _ended(database: str) -> int:
    return int(value(database, "select count(*) from pgqueue.finished_jobs"))


def _step(customer: int, n: int) -> None: ...

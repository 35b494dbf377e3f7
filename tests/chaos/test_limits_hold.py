"""Limits under SIGKILL and SIGSTOP: from the record of all claims and ends never more at once."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import deque
from dataclasses import dataclass

import pytest
from processes import QUICK, Processes
from recording import record

from pgqueue import Limit, PgQueue
from proving import rows, value


@dataclass(frozen=True)
class Trial:
    seconds: float
    workers: int
    kill_every: float
    kills: int


@pytest.mark.timeout(120)
def test_five_at_once_and_ten_a_second_hold_over_kills_and_zombies(
    database: str, processes: Processes
) -> None:
    _run(Trial(seconds=12, workers=3, kill_every=2.0, kills=2), database, processes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_at_once_and_ten_a_second_hold_for_a_minute_over_eight_workers(
    database: str, processes: Processes
) -> None:
    _run(Trial(seconds=60, workers=8, kill_every=2.0, kills=15), database, processes)


def _run(trial: Trial, database: str, processes: Processes) -> None:
    rand = random.Random(6)  # noqa: S311 - repeatable
    record(database)
    _enqueue(database)

    def start() -> subprocess.Popen[str]:
        environment = {**QUICK, "PGQUEUE_APP": "limits_app:pgq"}
        return processes.pgq(database, "worker", "--concurrency", "4", **environment)

    workers = [start() for _ in range(trial.workers)]
    stopped: deque[tuple[float, subprocess.Popen[str]]] = deque()
    while not value(database, "select count(*) from public.record"):
        time.sleep(0.05)
    began = next_kill = time.monotonic()
    kills = zombies = 0
    while time.monotonic() - began < trial.seconds:
        time.sleep(0.05)
        while stopped and time.monotonic() - stopped[0][0] > 4:
            stopped.popleft()[1].send_signal(signal.SIGCONT)
        if time.monotonic() < next_kill:
            continue
        next_kill += trial.kill_every
        place = rand.randrange(trial.workers)
        if any(worker is workers[place] for _, worker in stopped):
            continue
        if rand.random() < 0.5:
            workers[place].send_signal(signal.SIGSTOP)
            stopped.append((time.monotonic(), workers[place]))
            zombies += 1
        else:
            workers[place].kill()
            workers[place].communicate()
            workers[place] = start()
            kills += 1
    waiting = value(database, "select count(*) from pgqueue.jobs where state = 'blocked'")
    for worker in workers:
        worker.kill()

    most, starts, gap = _most_at_once(database), _most_starts(database), _longest_gap(database)
    ended = value(database, "select count(*) from pgqueue.finished_jobs")
    print(  # noqa: T201
        f"{kills} kills, {zombies} zombies, {ended} ended: at most {most} at once, {starts} starts "
        f"in a second; fewer than five for {gap:.2f} s at most"
    )
    assert kills + zombies >= trial.kills, "too few to prove anything"
    assert waiting > 0, "the work ran out"
    assert most == 5
    assert starts == 10
    # What a dead worker held is its own until its heartbeat is old; then it is for others at once.
    assert gap < 10


def _enqueue(database: str) -> None:
    app = PgQueue(database)
    app.task(name="work", limits=[Limit("five", running=5)])(_n).enqueue_many(
        {"n": n} for n in range(6_000)
    )
    app.task(name="rated", limits=[Limit("ten", starts=10, per=1.0)])(_n).enqueue_many(
        {"n": n} for n in range(1_000)
    )
    app.close()


def _n(n: int) -> None: ...


def _changes(database: str) -> list[tuple[float, int]]:
    query = (
        "select extract(epoch from at)::float8, change from public.record where name = 'five' "
        "order by at, line"
    )
    return [(at, change) for at, change in rows(database, query)]


def _most_at_once(database: str) -> int:
    live = most = 0
    for _, change in _changes(database):
        live += change
        most = max(most, live)
    return most


def _longest_gap(database: str) -> float:
    """The longest time with fewer than five, once there were five."""
    live, since, longest, has_begun = 0, 0.0, 0.0, False
    for at, change in _changes(database):
        live += change
        has_begun = has_begun or live == 5
        if live == 5:
            longest = max(longest, at - since if since else 0.0)
            since = 0.0
        elif has_begun and not since:
            since = at
    return longest


def _most_starts(database: str) -> int:
    """The most starts in any second."""
    query = (
        "select max(n) from (select count(*) over (order by at range between "
        "interval '999.999 ms' preceding and current row) as n from public.record "
        "where name = 'ten' and change = 1) as sliding"
    )
    return int(value(database, query))

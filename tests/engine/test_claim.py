"""What a claim takes, what it leaves, and what happens when others write at the same time."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import Batch, Rows, Steps, ask, run
from pgqueue.engine.claim import (
    STEADY_PLAN,
    Claimed,
    Lane,
    claim_jobs,
    claimed_of_rows,
    look_around,
    look_of_rows,
    new_lease,
)
from pgqueue.engine.rescue import rescue_jobs
from pgqueue.tasks.task import Task
from pgqueue.worker.lanes import LaneBook
from proving import Clock, blocked_on, rows, until, value

Claim = Callable[..., Claimed]
DEFAULT = [Lane("default", 5)]


def _claim(
    pgq: PgQueue, connection: psycopg.Connection[Any], lanes: Any = DEFAULT, limit: int = 10
) -> Claimed:
    lease = new_lease()
    statement = claim_jobs(pgq.sql, lanes, ["noop"], worker_id=1, lease=lease, limit=limit)

    def steps() -> Steps[Rows]:
        replies = yield Batch((STEADY_PLAN, statement))
        return replies[1]  # type: ignore[no-any-return]

    return claimed_of_rows(lease, run(connection, steps()))


@pytest.fixture
def claim(pgq: PgQueue) -> Claim:
    def claim(lanes: Any = DEFAULT, limit: int = 10) -> Claimed:
        with pgq.connection() as connection:
            return _claim(pgq, connection, lanes, limit)

    return claim


@pytest.fixture
def noop(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def noop() -> None: ...

    return noop


def _ids(claimed: Claimed) -> list[int]:
    return sorted(job.id for job in claimed.jobs)


def test_a_claimed_job_is_running_under_the_lease_with_one_more_attempt(
    pgq: PgQueue, noop: Task[None], claim: Claim
) -> None:
    job_id = noop.enqueue().id
    claimed = claim()
    assert (claimed.locked, _ids(claimed)) == (1, [job_id])
    job = pgq.get_job(job_id)
    assert (job.state, job.lease, job.attempt, job.worker_id) == ("running", claimed.lease, 1, 1)
    assert claim().jobs == ()


def test_an_empty_queue_answers_that_nothing_was_locked(claim: Claim) -> None:
    assert (claim().locked, claim().jobs) == (0, ())


def test_no_lanes_claim_nothing(claim: Claim, noop: Task[None]) -> None:
    noop.enqueue()
    assert claim(lanes=[]).jobs == ()


def test_leases_do_not_repeat_and_stay_exact_in_json() -> None:
    leases = [new_lease() for _ in range(10_000)]
    assert len(set(leases)) == len(leases)
    assert max(leases) < 2**53


def test_lanes_are_emptied_in_the_order_given(claim: Claim, noop: Task[None]) -> None:
    low = noop.using(priority=1).enqueue_many([{}] * 3)
    high = noop.using(priority=9).enqueue_many([{}] * 3)
    other = noop.using(queue="other", priority=9).enqueue_many([{}] * 3)
    lanes = [Lane("default", 9), Lane("other", 9), Lane("default", 1)]
    assert _ids(claim(lanes, limit=4)) == [*high, other[0]]
    assert _ids(claim(lanes, limit=3)) == [low[0], *other[1:]]
    assert _ids(claim(lanes, limit=9)) == low[1:]


def test_within_a_lane_the_oldest_due_job_comes_first(
    claim: Claim, noop: Task[None], clock: Clock
) -> None:
    later = noop.using(delay=60).enqueue().id
    sooner = noop.using(delay=30).enqueue().id
    clock.move(seconds=90)
    assert _ids(claim(limit=1)) == [sooner]
    assert _ids(claim(limit=1)) == [later]


def test_a_job_that_is_not_due_yet_is_left(claim: Claim, noop: Task[None], clock: Clock) -> None:
    noop.using(delay=60).enqueue()
    clock.move(seconds=59.999)
    assert claim().locked == 0
    clock.move(seconds=0.001)
    assert len(claim().jobs) == 1


def test_a_paused_queue_is_left_and_goes_on_when_resumed(
    database: str, claim: Claim, noop: Task[None]
) -> None:
    noop.enqueue()
    rows(database, "insert into pgqueue.queues (name, paused) values ('default', true)")
    assert claim().locked == 0
    rows(database, "update pgqueue.queues set paused = false")
    assert len(claim().jobs) == 1


def test_an_unknown_task_is_left_and_does_not_hide_the_known_one_behind_it(
    database: str, claim: Claim, noop: Task[None]
) -> None:
    rows(database, "insert into pgqueue.jobs (task, queue) select 'other', 'default'")
    known = noop.enqueue().id
    assert _ids(claim(limit=1)) == [known]
    assert value(database, "select state from pgqueue.jobs where task = 'other'") == "queued"


def test_the_bound_skips_what_lies_before_it(
    pgq: PgQueue, claim: Claim, noop: Task[None], clock: Clock
) -> None:
    ids = noop.enqueue_many([{}] * 4)
    assert _ids(claim([Lane("default", 5, (clock.at, ids[1]))])) == ids[2:]


def test_a_clock_that_stepped_back_does_not_hide_new_jobs_behind_the_bound(
    claim: Claim, noop: Task[None], clock: Clock
) -> None:
    bound = (clock.at, 10**6)
    clock.move(hours=-1)
    job_id = noop.enqueue().id
    clock.move(seconds=1)
    assert _ids(claim([Lane("default", 5, bound)])) == [job_id]


def test_rows_edited_between_snapshot_and_lock_are_told_and_come_with_the_next_claim(
    database: str, pgq: PgQueue, noop: Task[None]
) -> None:
    with connect(database) as gate, connect(database) as claimer, connect(database) as editor:
        _close_gate_between_snapshot_and_lock(gate)
        claimer.execute("set plan_cache_mode = force_generic_plan")
        for _ in range(5):  # planned now: planning calls clock() before the claim's snapshot
            _claim(pgq, claimer, DEFAULT, 5)
        ids = noop.enqueue_many([{}] * 5)
        gate.execute("select pg_advisory_lock(42)")
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(_claim, pgq, claimer, DEFAULT, 5)
            until(lambda: blocked_on(database, gate.info.backend_pid))
            editor.execute("update pgqueue.jobs set tags = '{x}' where id = any(%s)", [ids[:3]])
            gate.execute("select pg_advisory_unlock(42)")
            claimed = waiting.result(10)
        assert (claimed.locked, _ids(claimed)) == (5, ids[3:])
        assert _ids(_claim(pgq, claimer)) == ids[:3]


def _close_gate_between_snapshot_and_lock(gate: psycopg.Connection[Any]) -> None:
    """A claim that has its snapshot waits in clock() for advisory lock 42."""
    gate.execute(
        "create function pgqueue.wait_at_gate() returns boolean stable language plpgsql as "
        "$$begin perform pg_advisory_xact_lock_shared(42); return true; end$$"
    )
    gate.execute(
        "create or replace function pgqueue.clock() returns timestamptz language sql stable as "
        "'select case when pgqueue.wait_at_gate() then statement_timestamp() end'"
    )


def test_four_claimers_and_editors_take_each_job_once_and_leave_none(
    database: str, pgq: PgQueue, noop: Task[None]
) -> None:
    ids = noop.enqueue_many([{}] * 5000)
    taken: Counter[int] = Counter()
    done = threading.Event()

    def claim_all(seed: int) -> list[int]:
        rand, mine, misses = random.Random(seed), [], 0  # noqa: S311 - repeatable
        with connect(database) as connection:
            while misses < 3:
                claimed = _claim(pgq, connection, limit=rand.randint(1, 100))
                mine += _ids(claimed)
                misses = 0 if claimed.locked else misses + 1
        return mine

    def edit(seed: int) -> int:
        rand, edited = random.Random(seed), 0  # noqa: S311 - repeatable
        with connect(database) as connection:
            while not done.is_set():
                few = rand.sample(ids, 20)
                cursor = connection.execute(
                    "update pgqueue.jobs set tags = tags || '{x}' where id in (select id from "
                    "pgqueue.jobs where id = any(%s) and state = 'queued' for update skip locked)",
                    [few],
                )
                edited += cursor.rowcount
        return edited

    with ThreadPoolExecutor(6) as threads:
        editors = [threads.submit(edit, seed) for seed in range(2)]
        claimers = [threads.submit(claim_all, seed) for seed in range(4)]
        for claimer in claimers:
            taken.update(claimer.result(60))
        done.set()
        assert sum(editor.result(10) for editor in editors) > 0, "nobody edited: proves nothing"
        with connect(database) as connection:
            taken.update(_ids(_claim(pgq, connection, limit=5000)))
    assert taken == Counter(ids)


def test_a_late_commit_below_the_bound_is_found_by_the_sweep_and_drained(
    database: str, pgq: PgQueue, noop: Task[None]
) -> None:
    book = LaneBook((), lambda: 1.0)
    with connect(database) as claimer, psycopg.connect(database) as late:
        noop.using(connection=late).enqueue_many([{}] * 300)
        noop.enqueue_many([{}] * 50)
        found = look_of_rows(run(claimer, ask(look_around(pgq.sql, 0)))).lanes
        book.found((queue, priority) for queue, priority, _ in found)
        book.saw(Claimed(1, 0, ()), sweep=True, seconds=1.0, now=0.0)  # a dear one: bounds count

        def turn(now: float) -> int:
            sweep = book.is_sweep_due(now)
            claimed = _claim(pgq, claimer, book.order(sweep=sweep), 100)
            book.saw(claimed, sweep=sweep, seconds=1.0, now=now)
            return len(claimed.jobs)

        assert turn(1.0) == 50
        late.commit()
        assert turn(2.0) == 0, "the bound is past them: else this proves nothing"
        # One sweep, then from the lowered bound at full speed.
        assert [turn(11.0), turn(11.1), turn(11.2), turn(11.3)] == [100, 100, 100, 0]


def test_what_returns_to_the_queue_is_due_now_and_not_in_the_past(
    database: str, noop: Task[None], claim: Claim, clock: Clock
) -> None:
    noop.enqueue()
    claim()
    before = clock.at
    clock.move(hours=1)
    rows(database, "delete from pgqueue.workers")
    with connect(database) as connection:
        run(connection, rescue_jobs(PgQueue(database).sql, 15.0))
    assert value(database, "select run_at from pgqueue.jobs") == before + timedelta(hours=1)
    assert value(database, "select scheduled_at from pgqueue.jobs") == before

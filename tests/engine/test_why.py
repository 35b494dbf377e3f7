"""Why a job does not run: each cause, from a database in which it is true."""

from __future__ import annotations

from datetime import timedelta

import pytest

from endings import end, run_on, worker
from pgqueue import Operator, PgQueue
from pgqueue.engine.why import Cause
from pgqueue.tasks.task import Task
from proving import Clock, rows


@pytest.fixture
def add(pgq: PgQueue, clock: Clock) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int = 1) -> int:
        return a

    assert pgq.settings.heartbeat_timeout == 15
    rows(pgq.conninfo(), "select pgqueue.make_partitions()")
    return add


@pytest.fixture
def free_worker(database: str, clock: Clock) -> int:
    """A live worker of all queues with one free slot."""
    return worker(database, tasks=["add"])


def causes(pgq: PgQueue, job_id: int) -> list[str]:
    return [cause.cause for cause in pgq.why(job_id)]


def only(pgq: PgQueue, job_id: int) -> Cause:
    (cause,) = pgq.why(job_id)
    return cause


def test_not_found(pgq: PgQueue) -> None:
    cause = only(pgq, 42)

    assert cause == Cause(
        "not-found", "job 42 does not exist, or retention has dropped it", {"id": 42}
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("completed", "it completed at 2030-01-01T12:00:00+00:00"),
        ("failed", "it failed at 2030-01-01T12:00:00+00:00 (timeout: no such host)"),
        ("cancelled", "it was cancelled at 2030-01-01T12:00:00+00:00 (timeout: no such host)"),
    ],
)
def test_finished(pgq: PgQueue, database: str, add: Task[int], state: str, said: str) -> None:
    job = add.enqueue()
    end(database, job.id, state=state, reason="timeout")

    cause = only(pgq, job.id)

    assert (cause.cause, cause.message) == ("finished", said)
    assert cause.details == {
        "state": state,
        "finished_at": "2030-01-01T12:00:00+00:00",
        "attempt": 1,
        "reason": None if state == "completed" else "timeout",
    }


def test_quarantined(pgq: PgQueue, database: str, add: Task[int]) -> None:
    job = add.enqueue()
    rows(database, "update pgqueue.jobs set crashes = 3, suspect = true")
    end(database, job.id, reason="crashed")

    _, cause = pgq.why(job.id)

    assert (cause.cause, cause.details) == ("quarantined", {"crashes": 3})
    assert cause.message == "quarantined: 3 workers died while they ran it"


def test_finished_and_its_unique_key_is_taken(pgq: PgQueue, database: str, add: Task[int]) -> None:
    job = add.using(unique_key="k").enqueue()
    end(database, job.id)
    holder = add.using(unique_key="k").enqueue()

    _, cause = pgq.why(job.id)

    assert cause.cause == "unique-key"
    assert cause.details == {"unique_key": "k", "job_id": holder.id}
    assert cause.message == f"its unique key is held by job {holder.id}: a retry would be refused"


def test_running(pgq: PgQueue, database: str, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()
    run_on(database, job.id, free_worker, since=5)
    rows(database, "update pgqueue.workers set started_jobs = array[%s]::bigint[]", [job.id])

    cause = only(pgq, job.id)

    assert cause.cause == "running"
    assert cause.message == (
        f"it runs on worker {free_worker} (host-1, pid 77) since 2030-01-01T11:59:55+00:00, "
        "attempt 1"
    )
    assert cause.details == {
        "worker_id": free_worker,
        "host": "host-1",
        "pid": 77,
        "started_at": "2030-01-01T11:59:55+00:00",
        "attempt": 1,
    }


def test_claimed_and_not_started(
    pgq: PgQueue, database: str, add: Task[int], free_worker: int
) -> None:
    job = add.enqueue()
    run_on(database, job.id, free_worker, since=5)

    assert "is claimed and waits for a free slot on worker" in only(pgq, job.id).message


def test_running_on_a_dead_worker(pgq: PgQueue, database: str, add: Task[int]) -> None:
    job = add.enqueue()
    run_on(database, job.id, worker(database, silent=16), since=60)

    assert causes(pgq, job.id) == ["running", "worker-died"]


def test_running_on_a_worker_that_left_no_row(pgq: PgQueue, database: str, add: Task[int]) -> None:
    job = add.enqueue()
    run_on(database, job.id, 4711)

    assert causes(pgq, job.id) == ["running", "worker-died"]


def test_running_and_cancel_requested(
    pgq: PgQueue, database: str, add: Task[int], free_worker: int
) -> None:
    job = add.enqueue()
    run_on(database, job.id, free_worker)
    pgq.cancel(job.id)

    assert causes(pgq, job.id) == ["running", "cancel-requested"]
    assert pgq.why(job.id)[1].details == {"cancel_requested_at": "2030-01-01T12:00:00+00:00"}


def test_waiting_and_cancel_requested(
    pgq: PgQueue, database: str, add: Task[int], free_worker: int
) -> None:
    job = add.enqueue()
    rows(database, "update pgqueue.jobs set cancel_requested_at = pgqueue.clock_now()")

    assert causes(pgq, job.id) == ["cancel-requested"]


def test_paused_queue(pgq: PgQueue, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()
    pgq.pause("default", reason="deploy", by=Operator("eva"))

    cause = only(pgq, job.id)

    assert cause.cause == "paused-queue"
    assert cause.message == (
        "queue 'default' is paused by eva since 2030-01-01T12:00:00+00:00 (deploy): "
        "pgq queues resume default"
    )
    assert cause.details == {
        "queue": "default",
        "paused_by": "eva",
        "paused_at": "2030-01-01T12:00:00+00:00",
        "reason": "deploy",
    }


def test_a_queue_paused_by_hand_in_sql(
    pgq: PgQueue, database: str, add: Task[int], free_worker: int
) -> None:
    job = add.enqueue()
    rows(database, "insert into pgqueue.queues (name, paused) values ('default', true)")

    assert only(pgq, job.id).message == "queue 'default' is paused: pgq queues resume default"


def test_future(pgq: PgQueue, add: Task[int], free_worker: int) -> None:
    job = add.using(delay=90).enqueue()

    cause = only(pgq, job.id)

    assert cause.cause == "future"
    assert cause.details == {"run_at": "2030-01-01T12:01:30+00:00", "seconds": 90}
    assert cause.message == (
        "its time is 2030-01-01T12:01:30+00:00, in 90 s: pgq jobs retry runs it now"
    )


def test_future_after_a_failed_try(
    pgq: PgQueue, database: str, add: Task[int], free_worker: int
) -> None:
    job = add.using(delay=90).enqueue()
    rows(database, "update pgqueue.jobs set attempt = 2, max_attempts = 4")

    assert "in 90 s, after 2 of 4 tries:" in only(pgq, job.id).message


def test_blocked(pgq: PgQueue, database: str, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()
    rows(database, "update pgqueue.jobs set state = 'blocked', blocked_on = 'email'")

    cause = only(pgq, job.id)

    assert (cause.cause, cause.details["limit"]) == ("blocked", "email")
    assert cause.message == (
        "it waits for limit 'email', which has room: its turn comes within about a second; "
        "0 jobs stand before it in the line"
    )


def test_waiting(pgq: PgQueue, database: str, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()
    rows(database, "update pgqueue.jobs set state = 'waiting', workflow_id = 8")

    cause = only(pgq, job.id)

    details = {"workflow_id": 8, "open_parents": 0, "parents": []}
    assert (cause.cause, cause.details) == ("waiting", details)


def test_expired(pgq: PgQueue, clock: Clock, add: Task[int], free_worker: int) -> None:
    job = add.using(expires_at=clock.at + timedelta(seconds=5)).enqueue()
    clock.move(seconds=5)

    cause = only(pgq, job.id)

    assert (cause.cause, cause.details) == ("expired", {"expires_at": "2030-01-01T12:00:05+00:00"})


def test_no_worker_at_all(pgq: PgQueue, add: Task[int]) -> None:
    job = add.enqueue()

    cause = only(pgq, job.id)

    assert (cause.cause, cause.details) == ("no-worker", {"queue": "default", "live_workers": 0})
    assert cause.message == "no live worker takes from queue 'default'"


def test_no_worker_of_this_queue(pgq: PgQueue, database: str, add: Task[int]) -> None:
    worker(database, queues=["email"], tasks=["add"])
    job = add.enqueue()

    assert only(pgq, job.id).message == (
        "no live worker takes from queue 'default' (1 take from other queues)"
    )


def test_no_worker_that_lives(pgq: PgQueue, database: str, add: Task[int]) -> None:
    worker(database, tasks=["add"], silent=16)
    job = add.enqueue()

    assert causes(pgq, job.id) == ["no-worker"]


def test_unknown_task(pgq: PgQueue, database: str, add: Task[int]) -> None:
    worker(database, queues=["default"], tasks=["other"])
    worker(database, queues=["email"], tasks=["add"])
    job = add.enqueue()

    cause = only(pgq, job.id)

    assert cause.cause == "unknown-task"
    assert cause.details == {"task": "add", "queue": "default", "listening": 1}
    assert "knows the task 'add'" in cause.message


def test_suspect(pgq: PgQueue, database: str, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()
    rows(database, "update pgqueue.jobs set suspect = true, crashes = 1")

    assert causes(pgq, job.id) == ["suspect", "ready"]
    assert pgq.why(job.id)[0].details == {"crashes": 1}


def test_behind_others(pgq: PgQueue, add: Task[int], free_worker: int) -> None:
    add.using(priority=9).enqueue()
    add.using(priority=9, queue="email").enqueue()
    add.using(priority=4).enqueue()
    first, second, job = (add.enqueue() for _ in range(3))

    cause = only(pgq, job.id)

    assert cause.cause == "behind-others"
    assert cause.details == {
        "before": 3, "in_lane": 2, "higher_priority": 1, "slots": 1, "busy": 0,
    }  # fmt: skip
    assert cause.message == (
        "3 due jobs of queue 'default' stand before it, and 0 of 1 slots are busy"
    )
    assert pgq.why(second.id)[0].details["in_lane"] == 1
    assert first.id < second.id


def test_all_slots_busy(pgq: PgQueue, database: str, add: Task[int], free_worker: int) -> None:
    running, job = add.enqueue(), add.enqueue()
    run_on(database, running.id, free_worker)

    cause = only(pgq, job.id)

    assert (cause.cause, cause.details["slots"], cause.details["busy"]) == ("behind-others", 1, 1)


def test_ready(pgq: PgQueue, add: Task[int], free_worker: int) -> None:
    job = add.enqueue()

    cause = only(pgq, job.id)

    assert cause.cause == "ready"
    assert cause.message == "it is due; a worker should take it within 5 s"
    assert cause.details["within_seconds"] == 5


def test_several_causes_stand_in_the_order_in_which_they_have_to_go_away(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.using(delay=90).enqueue()
    pgq.pause("default")
    rows(database, "update pgqueue.jobs set suspect = true")

    assert causes(pgq, job.id) == ["paused-queue", "future", "no-worker", "suspect"]

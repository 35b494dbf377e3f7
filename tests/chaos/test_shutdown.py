"""SIGTERM: what runs ends or is handed back in time, and a second signal leaves at once."""

from __future__ import annotations

import signal
import time

import pytest
from processes import Processes

from pgqueue import PgQueue
from proving import rows, states, until

LIMIT = 2.0


def _sleep(seconds: float) -> None: ...


def _stubborn() -> None: ...


def _enqueue(database: str, *seconds: float) -> None:
    app = PgQueue(database)
    app.task(name="sleep")(_sleep).enqueue_many({"seconds": one} for one in seconds)
    app.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_jobs_in_flight_end_or_are_handed_back_within_the_limit(
    effects: str, processes: Processes, name: str
) -> None:
    _enqueue(effects, *[1.0] * 10, *[600.0] * 10)
    worker = processes.pgq(
        effects, "worker", "--concurrency", "20", "--shutdown-timeout", str(LIMIT)
    )
    until(lambda: states(effects) == {"running": 20})
    _enqueue(effects, 0.0)

    began = time.monotonic()
    worker.send_signal(getattr(signal, name))
    worker.communicate(timeout=30)
    seconds = time.monotonic() - began

    assert worker.returncode == 0, processes.said
    assert seconds < LIMIT + 2
    found = rows(
        effects,
        "select state, attempt, (payload ->> 'seconds')::float, count(*) "
        "from pgqueue.all_jobs group by 1, 2, 3 order by 1, 3",
    )
    assert found == [
        ("completed", 1, 1.0, 10),
        ("queued", 0, 0.0, 1),  # came after the signal
        ("queued", 0, 600.0, 10),
    ]
    assert rows(effects, "select id from pgqueue.workers") == []


def test_a_second_signal_leaves_at_once_and_what_ran_is_rescued(
    effects: str, processes: Processes
) -> None:
    _enqueue(effects, *[600.0] * 3)
    worker = processes.pgq(effects, "worker", "--shutdown-timeout", "600")
    until(lambda: states(effects) == {"running": 3})

    worker.send_signal(signal.SIGTERM)
    until(lambda: "asked to stop" in processes.said or "stopping" in processes.said.lower())
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)

    assert time.monotonic() - began < 2
    assert worker.returncode == 130
    assert states(effects) == {"running": 3}


def test_a_handler_that_swallows_its_cancellation_keeps_no_worker_from_leaving(
    effects: str, processes: Processes
) -> None:
    app = PgQueue(effects)
    app.task(name="stubborn")(_stubborn).enqueue()
    app.close()
    worker = processes.pgq(effects, "worker", "--shutdown-timeout", "0")
    until(lambda: states(effects) == {"running": 1})
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 0, processes.said

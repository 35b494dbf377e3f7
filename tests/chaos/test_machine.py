"""Random interleavings of everything that can happen to jobs keep every promise, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from enqueuing import MODES
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import QueueMachine
from working import ENDINGS
from world import PREPARE

DEEDS = {
    "enqueue",
    *(f"enqueue-{mode}" for mode in MODES),
    *(f"period-{mode}" for mode in MODES),
    *ENDINGS,
    "claim",
    "transaction",
    "stage",
    "progress",
    "exchange-end",
    "commit",
    "rescue_jobs",
    "forget_worker",
    "hand_back_strays",
    "cancel_jobs",
    "cancel",
    "retry",
    "delete",
    "pause",
    "resume",
    "clock",
}
"""What a proof has to contain, each at least once with an effect."""

Drive = Callable[[int, int], type[QueueMachine]]


@pytest.fixture
def drive(database: str) -> Drive:
    """Runs so many random stories of so many rules each."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PREPARE)

    def drive(stories: int, steps: int) -> type[QueueMachine]:
        machine = type("Machine", (QueueMachine,), {"url": database, "deeds": Counter()})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=stories,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # Not made smaller: each try costs seconds, and the story reads well as it is.
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                # The default one varies few stories; this one makes each anew, and finds more.
                backend="hypothesis-urandom",
            ),
        )
        return machine

    return drive


@pytest.mark.timeout(300)
def test_random_stories_keep_every_promise(drive: Drive) -> None:
    machine = drive(50, 50)
    assert machine.steps_done >= 2_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_random_steps_keep_every_promise(drive: Drive) -> None:
    done = lost = 0
    deeds: Counter[str] = Counter()
    while done < 20_000:
        machine = drive(80, 50)
        done += machine.steps_done
        lost += machine.lost_writes
        deeds += machine.deeds
    print(f"{done} steps, {lost} writes of zombies refused\n{dict(deeds)}")  # noqa: T201 - with -s
    assert lost > 0, "no zombie ever tried to write"
    assert deeds.keys() >= DEEDS, "some deeds were never tried"

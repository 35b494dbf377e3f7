"""Random interleavings of everything that can happen to jobs keep every promise, step by step."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import QueueMachine
from world import PREPARE


@pytest.fixture
def drive(database: str) -> Callable[[int, int], type[QueueMachine]]:
    """Runs so many random stories of so many steps each."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PREPARE)

    def drive(stories: int, steps: int) -> type[QueueMachine]:
        machine = type("Machine", (QueueMachine,), {"url": database})
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
            ),
        )
        return machine

    return drive


def test_random_stories_keep_every_promise(drive: Callable[[int, int], type[QueueMachine]]) -> None:
    machine = drive(18, 50)
    assert machine.steps_done >= 400


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_random_steps_keep_every_promise(
    drive: Callable[[int, int], type[QueueMachine]],
) -> None:
    machine: type[QueueMachine] | None = None
    done = lost = 0
    while done < 20_000:
        machine = drive(100, 100)
        done += machine.steps_done
        lost += machine.lost_writes
    assert lost > 0, "no zombie ever tried to write"

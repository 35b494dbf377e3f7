"""The duties of a worker: each at its time, whatever became of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgqueue.events import DutyFailed
from pgqueue.worker import upkeep as upkeep_module
from pgqueue.worker.link import LinkDown
from pgqueue.worker.upkeep import LONGEST_REST, Duty, Upkeep
from proving import Recorder


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(upkeep_module, "time", moved)
    return moved


def _duty(name: str, moved: Time, *, cost: float = 0.0, error: Exception | None = None) -> Duty:
    async def work() -> None:
        moved.now += cost
        if error is not None:
            raise error

    return Duty(name, 10.0, work)


async def _connected() -> None: ...


async def test_after_an_outage_of_minutes_duties_come_at_their_usual_pace(moved: Time) -> None:
    async def away_for_minutes() -> None:
        moved.now += 300.0

    duty = _duty("rescue", moved)
    await Upkeep([duty], away_for_minutes).run_once()
    assert 9.0 <= duty.due - moved.now <= 10.0


@pytest.mark.parametrize("error", [LinkDown("gone"), ValueError("odd")])
async def test_a_duty_that_fails_is_told_comes_again_soon_and_stops_no_other(
    moved: Time, recorder: Recorder, error: Exception
) -> None:
    failing, fine = _duty("a", moved, error=error), _duty("b", moved)
    await Upkeep([failing, fine], _connected).run_once()
    assert [event.duty for event in recorder.of(DutyFailed)] == ["a"]
    assert failing.due - moved.now <= 1.0
    assert fine.due - moved.now >= 9.0


async def test_a_dear_duty_takes_a_twentieth_of_the_time_but_rests_at_most_a_minute(
    moved: Time,
) -> None:
    for cost, rest in ((1.0, 20.0), (100.0, LONGEST_REST)):
        duty = _duty("dear", moved, cost=cost)
        await Upkeep([duty], _connected).run_once()
        assert 0.9 * rest <= duty.due - moved.now <= rest


async def test_a_hurry_that_comes_while_the_duty_works_is_not_forgotten(moved: Time) -> None:
    async def work() -> None:
        upkeep.hurry("strays")

    duty = Duty("strays", 10.0, work)
    upkeep = Upkeep([duty], _connected)
    await upkeep.run_once()
    assert duty.due <= moved.now


async def test_hurry_wakes_the_upkeep_and_stop_ends_it() -> None:
    done: list[Any] = []
    came = asyncio.Event()

    async def work() -> None:
        done.append(1)
        came.set()

    upkeep = Upkeep([Duty("a", 3600.0, work)], _connected)
    running = asyncio.create_task(upkeep.run())
    await asyncio.wait_for(came.wait(), 5)
    came.clear()
    upkeep.hurry("a")
    await asyncio.wait_for(came.wait(), 5)
    upkeep.stop()
    await asyncio.wait_for(running, 5)
    assert len(done) == 2

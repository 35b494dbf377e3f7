"""A hint wakes a worker at once, and many hints cost no more than a few."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from pgqueue.db.run import Rows, Statement
from pgqueue.worker import loop as loop_module
from pgqueue.worker.hand import Hand
from pgqueue.worker.lanes import LaneBook
from pgqueue.worker.loop import ClaimLoop
from pgqueue.worker.pace import Pace


class _Time:
    """Stands still; `monotonic` is what the loop looks at."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class _SlowLink:
    """Each look takes a second and finds nothing."""

    def __init__(self, clock: _Time, costs: Sequence[float] = ()) -> None:
        self._clock = clock
        self._costs = chain(costs, repeat(1.0))
        self.looks = 0

    async def ask(self, _: Statement) -> list[Rows]:
        self.looks += 1
        self._clock.now += next(self._costs)
        return [[(None, None, None, False, None)]]


_NO_SLOTS: Any = SimpleNamespace(keep=lambda _: None, kept=0, free=lambda: 1)


class _NoRunner:
    lingering: frozenset[Any] = frozenset()


def _loop(link: Any) -> ClaimLoop:
    return ClaimLoop(
        sql={"look_around": "look", "claim_jobs": "claim", "claim_limited": "limited"},
        link=link,
        runner=_NoRunner(),  # type: ignore[arg-type]  # nothing is run
        slots=_NO_SLOTS,
        hand=Hand(),
        pace=Pace(1, 0.0),
        lanes=LaneBook((), lambda: 0.5),
        tasks=(),
        worker_id=lambda: 1,
        concurrency=1,
        poll_interval=1.0,
        is_listening=lambda: True,
        on_lost_reply=lambda: None,
        queues=(),
        lowest=lambda: 0,
        on_blocked=lambda _: None,
    )


class _UnknownTasks(_SlowLink):
    """A lane that holds only tasks of others: each claim takes a second and finds nothing."""

    claims = 0

    async def ask(self, asked: Statement) -> list[Rows]:
        if asked.text == "look":
            self.looks += 1
            return [[("default", 5, -1.0, False, None)]]
        self.claims += 1
        self._clock.now += 1.0
        return [[]]


async def _hinted(claims: ClaimLoop, times: int) -> None:
    for _ in range(times):
        claims.wake("default")
        for _ in range(5):
            await asyncio.sleep(0)


async def test_hints_by_the_thousand_do_not_keep_the_database_busy_with_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Time()
    monkeypatch.setattr(loop_module, "time", clock)
    link = _SlowLink(clock)
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    await _hinted(claims, 50)
    assert link.looks == 1, "a look of a second is paid for with a rest, whoever asks for more"
    clock.now += 10.0
    await _hinted(claims, 1)
    assert link.looks == 2
    claims.stop_claiming()
    await asyncio.wait_for(run, 5)


async def test_one_look_that_took_long_among_cheap_ones_is_not_rested_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handler blocked the event loop meanwhile, say: the database had nothing to do with it."""
    clock = _Time()
    monkeypatch.setattr(loop_module, "time", clock)
    link = _SlowLink(clock, [0.001, 1.0, 0.001, 1.0, 1.0])
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    await _hinted(claims, 1)
    clock.now += 0.1
    await _hinted(claims, 1)
    assert link.looks == 3, "after one look of a second, the next one had to wait"
    clock.now += 0.1
    await _hinted(claims, 50)
    assert link.looks == 5, "two in a row are dear, whatever the reason"
    claims.stop_claiming()
    await asyncio.wait_for(run, 5)


async def test_hints_of_jobs_for_others_do_not_keep_the_database_busy_with_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Time()
    monkeypatch.setattr(loop_module, "time", clock)
    link = _UnknownTasks(clock)
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    await _hinted(claims, 50)
    assert link.claims == 1
    clock.now += 10.0
    await _hinted(claims, 1)
    assert link.claims == 2
    claims.stop_claiming()
    await asyncio.wait_for(run, 5)


class _BlockingHandlers(_UnknownTasks):
    """Hinted claims bring a job whose handler blocks for a second; looks take a millisecond."""

    async def ask(self, asked: Statement) -> list[Rows]:
        brings = asked.text == "claim" and self.claims % 2 == 1
        before = self._clock.now
        (rows,) = await super().ask(asked)
        self._clock.now = before + (1.0 if brings else 0.001)
        return [[(1, None)] if brings else rows]


async def test_what_a_hinted_claim_and_its_handlers_took_does_not_count_as_the_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Time()
    monkeypatch.setattr(loop_module, "time", clock)
    link = _BlockingHandlers(clock)
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    for hints in range(5):
        await _hinted(claims, 1)
        assert link.looks == hints + 1
        clock.now += 0.1
    claims.stop_claiming()
    await asyncio.wait_for(run, 5)


class _HeldLink:
    """Its looks answer when they are let go; each says what it was told to see."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    def answer(self, *row: Any) -> None:
        self._answers.put_nowait(row)

    async def ask(self, asked: Statement) -> list[Rows]:
        self.asked.append(asked.text)
        return [[await self._answers.get()]]


_NOTHING = (None, None, None, False, None)


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_look_that_was_under_way_when_more_was_announced_does_not_end_a_burst() -> None:
    link = _HeldLink()
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    await _settled()
    assert link.asked == ["look"]
    claims.wake()
    link.answer(*_NOTHING)
    await _settled()
    assert not claims.idle.is_set(), "what was announced meanwhile, that look had not seen"
    link.answer(*_NOTHING)
    await asyncio.wait_for(claims.idle.wait(), 5)
    claims.stop_claiming()
    link.answer(*_NOTHING)
    await asyncio.wait_for(run, 5)


async def test_a_look_that_was_under_way_when_jobs_were_let_in_does_not_forget_them() -> None:
    link = _HeldLink()
    claims = _loop(link)
    run = asyncio.create_task(claims.run())
    await _settled()
    claims.let_in()
    link.answer(*_NOTHING)
    await _settled()
    assert link.asked == ["look", "limited"]
    assert not claims.idle.is_set()
    claims.stop_claiming()
    link.answer(0, *[None] * 24)
    await asyncio.wait_for(run, 5)

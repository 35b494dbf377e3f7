"""How far a worker fetches ahead: what it runs within a moment, never what would wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgqueue.worker.pace import AHEAD_SECONDS, MOST_AHEAD, Pace, Share


def _learned(concurrency: int, seconds: float, count: int = 200) -> Pace:
    """A worker whose slots were never idle and never in each other's way."""
    pace, now = Pace(concurrency, 0.0), 0.0
    for _ in range(count):
        now += seconds / concurrency
        pace.count(seconds, now)
    return pace


def test_before_any_job_has_ended_nothing_is_fetched_ahead() -> None:
    assert Pace(10, 0.0).ahead(0.0) == 0


def test_slow_handlers_have_nothing_fetched_ahead_of_them() -> None:
    pace = _learned(4, 10.0, count=8)
    pace.took(starved=True)
    assert pace.ahead(20.0) == 0


def test_fast_handlers_have_two_rounds_fetched_ahead_after_their_first_batch() -> None:
    pace = Pace(10, 0.0)
    pace.count(0.00002, 0.001)
    assert pace.ahead(0.001) == MOST_AHEAD


@given(st.integers(1, 200), st.floats(0.00001, 100))
def test_what_is_fetched_ahead_is_run_within_a_moment(concurrency: int, seconds: float) -> None:
    pace = _learned(concurrency, seconds, count=50)
    pace.took(starved=True)
    ahead = pace.ahead(50 * seconds / concurrency)
    assert 0 <= ahead <= MOST_AHEAD
    assert ahead * seconds / concurrency <= AHEAD_SECONDS * 1.01


def test_handlers_that_share_one_processor_are_judged_by_what_really_ends() -> None:
    # A hundred slots, a millisecond of the event loop each: 1,000 jobs a second, not 100,000.
    pace = Pace(100, 0.0)
    for number in range(1, 3_001):
        pace.count(0.001, number / 1_000)
    pace.took(starved=False)
    assert pace.ahead(3.0) <= 2 * 1_000 * AHEAD_SECONDS + 1


def test_what_was_learned_can_be_forgotten() -> None:
    pace = _learned(10, 0.0001)
    pace.forget(1.0)
    assert pace.ahead(1.0) == 0


def test_what_was_not_done_for_a_while_may_be_done_at_once_and_again_soon() -> None:
    share = Share(0.2, saved=0.1)
    share.spent(100.0, 0.002)
    share.spent(100.005, 0.002)
    assert share.free_from < 100.01, "both were saved up"


def test_what_is_done_as_often_as_it_may_be_takes_its_share_and_no_more() -> None:
    share, now, took = Share(0.2, saved=0.1), 100.0, 0.0
    while now < 200.0:
        now = max(now, share.free_from)
        share.spent(now, 0.01)
        now += 0.01
        took += 0.01
    assert 0.19 < took / 100 < 0.21


def test_nothing_is_rested_for_longer_than_ten_seconds() -> None:
    share = Share(0.2, saved=0.1)
    share.spent(100.0, 60.0)
    assert share.free_from <= 110.0

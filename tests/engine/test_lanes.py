"""The order of lanes and their bounds, as values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pgqueue.db.run import EPOCH
from pgqueue.engine.claim import LANE_START, Claimed, ClaimedJob
from pgqueue.worker.lanes import CHEAP, PROMOTE_EVERY, SWEEP_AT_MOST, SWEEP_SHARE, LaneBook

T0 = datetime(2030, 1, 1, tzinfo=UTC)
LANES = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), min_size=1, max_size=12, unique=True
)


def _book(lanes: list[tuple[str, int]], queues: tuple[str, ...] = ()) -> LaneBook:
    book = LaneBook(queues, lambda: 1.0)
    book.found(lanes)
    return book


def _job(job_id: int, at: float, queue: str = "a", priority: int = 5) -> ClaimedJob:
    when = (T0 - EPOCH + timedelta(seconds=at)) // timedelta(microseconds=1)
    return ClaimedJob(
        id=job_id, task="t", queue=queue, priority=priority, payload="{}", tenant=None, tags=None,
        unique_key=None, run_at=when, scheduled_at=when, attempt=1, max_attempts=1, lease=1,
        worker_id=1, started_at=when, created_at=when, timeout=None, headers=None, expires_at=None,
        cancel_requested_at=None, crashes=0, suspect=False,
    )  # fmt: skip


def _claimed(*jobs: ClaimedJob, locked: int | None = None) -> Claimed:
    # As claimed_of_rows gives them.
    ordered = sorted(jobs, key=lambda job: (-job.priority, job.run_at, job.id))
    return Claimed(1, len(jobs) if locked is None else locked, tuple(ordered))


def _make_dear(book: LaneBook, now: float = 0.0) -> None:
    """As after a claim that passed many dead entries: the bound is used from now on."""
    book.saw(_claimed(), sweep=True, seconds=1.0, now=now)


@given(lanes=LANES)
def test_every_lane_goes_first_within_promote_every_times_lanes_claims(
    lanes: list[tuple[str, int]],
) -> None:
    book = _book(lanes)
    firsts = []
    for _ in range(3 * PROMOTE_EVERY * len(lanes)):
        first = book.order(sweep=True)[0]
        firsts.append((first.queue, first.priority))
    window = PROMOTE_EVERY * len(lanes)
    for start in range(2 * window):
        assert set(firsts[start : start + window]) == set(lanes)


@given(lanes=LANES)
def test_each_claim_asks_every_lane_once_and_mostly_by_priority(
    lanes: list[tuple[str, int]],
) -> None:
    book = _book(lanes)
    for turn in range(1, 30):
        asked = [(lane.queue, lane.priority) for lane in book.order(sweep=False)]
        assert sorted(asked) == sorted(lanes)
        if turn % PROMOTE_EVERY:
            assert [priority for _, priority in asked] == sorted(
                (priority for _, priority in lanes), reverse=True
            )


def test_lanes_of_one_priority_take_turns() -> None:
    book = _book([("a", 5), ("b", 5), ("c", 5)])
    firsts = {book.order(sweep=True)[0].queue for _ in range(3)}
    assert firsts == {"a", "b", "c"}


def test_a_worker_of_named_queues_sees_no_other_lane() -> None:
    book = _book([("a", 5), ("b", 5)], queues=("b",))
    assert [lane.queue for lane in book.order(sweep=True)] == ["b"]


def test_while_claims_are_cheap_each_one_is_a_sweep() -> None:
    book = _book([("a", 5)])
    for turn in range(10):
        assert book.is_sweep_due(float(turn))
        book.saw(_claimed(_job(turn + 1, turn)), sweep=True, seconds=CHEAP / 2, now=float(turn))


def test_after_a_dear_claim_the_lane_is_asked_from_its_bound_on() -> None:
    book = _book([("a", 5)])
    book.saw(_claimed(_job(7, 3), _job(9, 3), _job(8, 2)), sweep=True, seconds=1.0, now=0.0)
    assert not book.is_sweep_due(1.0)
    assert book.order(sweep=False)[0].bound == (T0 + timedelta(seconds=3), 9)
    assert book.order(sweep=True)[0].bound == LANE_START


@given(cost=st.floats(0.006, 100))
def test_a_sweep_comes_after_twenty_times_its_cost_but_within_ten_seconds(cost: float) -> None:
    book = _book([("a", 5)])
    book.saw(_claimed(), sweep=True, seconds=cost, now=0.0)
    assert book.is_sweep_due(SWEEP_AT_MOST)
    assert not book.is_sweep_due(0.74 * min(SWEEP_AT_MOST, SWEEP_SHARE * cost))


def test_a_sweep_lowers_the_bound_to_what_it_found_below_it() -> None:
    book = _book([("a", 5)])
    _make_dear(book)
    book.saw(_claimed(_job(100, 100)), sweep=False, seconds=0.1, now=1.0)
    book.saw(_claimed(_job(5, 5)), sweep=True, seconds=1.0, now=2.0)
    assert book.order(sweep=False)[0].bound == (T0 + timedelta(seconds=5), 5)


@given(got=st.integers(0, 5), missed=st.integers(1, 5))
def test_the_bound_stays_when_rows_were_edited_under_the_claim(got: int, missed: int) -> None:
    book = _book([("a", 5)])
    _make_dear(book)
    book.saw(_claimed(_job(1, 1)), sweep=False, seconds=0.1, now=1.0)
    before = book.order(sweep=False)[0].bound
    jobs = [_job(10 + number, 10) for number in range(got)]
    book.saw(_claimed(*jobs, locked=got + missed), sweep=False, seconds=0.1, now=1.5)
    assert book.order(sweep=False)[0].bound == before


def test_an_empty_claim_leaves_the_bound_where_it_was() -> None:
    book = _book([("a", 5)])
    _make_dear(book)
    book.saw(_claimed(_job(3, 3)), sweep=False, seconds=0.1, now=1.0)
    book.saw(_claimed(), sweep=False, seconds=0.1, now=1.5)
    assert book.order(sweep=False)[0].bound == (T0 + timedelta(seconds=3), 3)


@given(lanes=LANES)
def test_when_claims_are_dear_each_lane_leads_one_of_as_many_sweeps_as_there_are_lanes(
    lanes: list[tuple[str, int]],
) -> None:
    """Else what lies below the bound of a low lane waits for ever behind a full high one."""
    book = _book(lanes)
    _make_dear(book)
    led = []
    for _ in range(len(lanes)):
        for _ in range(5):
            book.order(sweep=False)
        first = book.order(sweep=True)[0]
        led.append((first.queue, first.priority))
        _make_dear(book)
    assert sorted(led) == sorted(lanes)


def test_a_backlog_is_claimed_from_the_bound_on_and_swept_now_and_then() -> None:
    book = _book([("a", 5)])
    assert book.is_sweep_due(0.0)
    book.saw(_claimed(_job(1, 1.0), _job(2, 2.0)), sweep=True, seconds=0.001, now=0.0, full=True)
    assert not book.is_sweep_due(0.05)
    assert book.order(sweep=False)[0].bound == (T0 + timedelta(seconds=2), 2)
    assert book.is_sweep_due(SWEEP_SHARE * 0.001)
    book.saw(_claimed(_job(3, 3.0)), sweep=False, seconds=0.001, now=0.06, full=False)
    assert book.is_sweep_due(0.06), "without a backlog, and cheap, every claim goes from the start"

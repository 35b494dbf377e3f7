"""Which windows are due: policies, limits, next_run_at set by hand, and tiling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.schedule.cron import Cron, zone
from pgqueue.schedule.windows import CatchUp, Due, Window, due_windows

DAILY = Cron("0 6 * * *")
HOURLY = Cron("0 * * * *")
MINUTELY = Cron("* * * * *")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SECOND, MICRO = timedelta(seconds=1), timedelta(microseconds=1)


def on(day: int, hour: int = 6, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def due(  # the everyday call, so that each test shows what it is about
    cron: Cron,
    next_run_at: datetime,
    now: datetime,
    last: datetime | None = None,
    *,
    catch_up: CatchUp = CatchUp.ALL,
    limit: int = 1000,
) -> Due:
    return due_windows(cron, next_run_at, now, last_window_end=last, catch_up=catch_up, limit=limit)


# ---- what is due


def test_nothing_is_due_before_next_run_at_even_if_the_clock_went_back() -> None:
    assert due(DAILY, on(2), on(2) - MICRO, on(1)) == Due((), on(2))
    assert due(DAILY, on(2), on(2) - 400 * DAY, on(1)) == Due((), on(2))


def test_at_the_very_instant_the_window_up_to_it_is_due() -> None:
    assert due(DAILY, on(2), on(2), on(1)) == Due((Window(on(1), on(2)),), on(3))


def test_a_late_tick_gives_the_window_that_was_due_not_one_up_to_now() -> None:
    assert due(DAILY, on(2), on(2, 23, 59), on(1)) == Due((Window(on(1), on(2)),), on(3))


def test_the_first_window_of_a_schedule_begins_at_the_fire_before() -> None:
    assert due(DAILY, on(2), on(2), None) == Due((Window(on(1), on(2)),), on(3))


def test_a_topics_three_windows_a_day_follow_the_local_clock() -> None:
    """On 29 March Bratislava's clocks go forward: the night's window is an hour short."""
    cron = Cron("0 6,14,22 * * *", "Europe/Bratislava")
    found = due(cron, on(28, 21), on(29, 20), on(28, 13))
    ends = [on(28, 21), on(29, 4), on(29, 12), on(29, 20)]
    assert found == Due(tiles([on(28, 13), *ends]), on(30, 4))


def tiles(edges: list[datetime]) -> tuple[Window, ...]:
    return tuple(Window(a, b) for a, b in pairwise(edges))


def test_a_window_across_a_repeated_hour_is_an_hour_longer() -> None:
    cron = Cron("30 2 * * *", "Europe/Bratislava")
    fire = datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert due(cron, fire, fire).windows == (Window(fire - 25 * HOUR, fire),)


# ---- catch-up after three days without a scheduler


def test_catch_up_all_gives_every_window_of_three_days() -> None:
    found = due(HOURLY, on(1), on(4), on(1, 5))
    assert found == Due(tiles([on(1, 5) + n * HOUR for n in range(74)]), on(4, 7))


def test_catch_up_latest_gives_the_last_window_alone_and_leaves_the_gap() -> None:
    found = due(HOURLY, on(1), on(4, 6, 30), on(1, 5), catch_up=CatchUp.LATEST)
    assert found == Due((Window(on(4, 5), on(4, 6)),), on(4, 7))


def test_catch_up_none_gives_nothing_when_the_newest_fire_is_late() -> None:
    found = due(HOURLY, on(1), on(4, 6, 30), on(1, 5), catch_up=CatchUp.NONE)
    assert found == Due((), on(4, 7))


@pytest.mark.parametrize(("late", "fires"), [(0 * SECOND, 1), (59 * SECOND, 1), (MINUTE, 0)])
def test_catch_up_none_fires_within_a_minute_of_being_due(late: timedelta, fires: int) -> None:
    found = due(HOURLY, on(1), on(4) + late, on(1, 5), catch_up=CatchUp.NONE)
    assert found == Due((Window(on(4, 5), on(4)),)[:fires], on(4, 7))


def test_catch_up_none_takes_the_grace_it_is_given() -> None:
    found = due_windows(
        HOURLY,
        on(1),
        on(4, 6, 30),
        last_window_end=on(1, 5),
        catch_up=CatchUp.NONE,
        limit=10,
        grace=HOUR,
    )
    assert found == Due((Window(on(4, 5), on(4)),), on(4, 7))


def test_catch_up_none_loses_no_window_of_a_schedule_faster_than_the_ticks() -> None:
    every_second, now = Cron("* * * * * *"), on(4) + 5 * SECOND
    found = due(every_second, on(4), now, on(4) - SECOND, catch_up=CatchUp.NONE)
    assert found == Due(tiles([on(4) + n * SECOND for n in range(-1, 6)]), now + SECOND)


def test_after_skipped_fires_the_next_window_does_not_stretch_over_them() -> None:
    skipped = due(HOURLY, on(1), on(4, 6, 30), on(1, 5), catch_up=CatchUp.NONE)
    found = due(HOURLY, skipped.next_run_at, on(4, 7), on(1, 5), catch_up=CatchUp.NONE)
    assert found == Due((Window(on(4), on(4, 7)),), on(4, 8))


def test_policies_read_as_they_are_stored() -> None:
    assert [CatchUp(word) for word in ("all", "latest", "none")] == list(CatchUp)


# ---- limit


def test_a_limit_takes_the_oldest_and_says_where_to_go_on() -> None:
    first = due(DAILY, on(2), on(9), on(1), limit=3)
    assert first == Due(tiles([on(1), on(2), on(3), on(4)]), on(5))
    rest = due(DAILY, first.next_run_at, on(9), first.windows[-1].end, limit=5)
    assert rest == Due(tiles([on(4), on(5), on(6), on(7), on(8), on(9)]), on(10))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_would_never_get_on_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit}"):
        due(DAILY, on(2), on(9), limit=limit)


# ---- next_run_at and the expression, changed by people


def test_next_run_at_set_back_repeats_the_same_windows() -> None:
    once = due(DAILY, on(2), on(9), on(1))
    again = due(DAILY, on(5), on(9), once.windows[-1].end)
    assert again.windows == once.windows[3:]
    assert again.next_run_at == once.next_run_at


def test_next_run_at_set_back_by_one_fire_repeats_the_last_window() -> None:
    assert due(DAILY, on(9), on(9), on(9)) == Due((Window(on(8), on(9)),), on(10))


def test_next_run_at_set_back_to_any_time_is_where_the_range_begins() -> None:
    once = due(DAILY, on(2), on(9), on(1))
    again = due(DAILY, on(4, 17, 23) + MICRO, on(9), once.windows[-1].end)
    assert again.windows == once.windows[3:]


def test_a_time_that_is_no_fire_moves_on_to_the_next_one_when_nothing_is_due() -> None:
    assert due(DAILY, on(4, 17), on(4, 18), on(4)) == Due((), on(5))


def test_next_run_at_set_ahead_leaves_no_hole() -> None:
    assert due(DAILY, on(5), on(5), on(2)) == Due((Window(on(2), on(5)),), on(6))


@pytest.mark.parametrize("policy", [CatchUp.ALL, CatchUp.LATEST])
def test_a_changed_expression_starts_where_the_last_window_ended(policy: CatchUp) -> None:
    """Daily at 6 became hourly at half past one; next_run_at was set for 14:00."""
    found = due(HOURLY, on(2, 14), on(2, 14), on(2), catch_up=policy)
    assert found == Due((Window(on(2), on(2, 14)),), on(2, 15))


@pytest.mark.parametrize("policy", list(CatchUp))
def test_a_changed_expression_never_overlaps_the_last_window(policy: CatchUp) -> None:
    """Hourly became daily: the day's window begins where the hours had got to."""
    found = due(DAILY, on(3), on(3), on(2, 14), catch_up=policy)
    assert found == Due((Window(on(2, 14), on(3)),), on(4))


def test_an_expression_changed_in_sql_alone_fires_at_its_own_next_instant() -> None:
    """next_run_at still is what the old expression left: 06:00, which is no fire of the new."""
    found = due(Cron("30 */4 * * *"), on(3), on(3, 13), on(2))
    assert found == Due(tiles([on(2), on(3, 8, 30), on(3, 12, 30)]), on(3, 16, 30))


def test_instants_in_a_local_zone_are_compared_as_instants() -> None:
    """02:30 comes twice: the second is after the first, though both read the same."""
    place = zone("Europe/Bratislava")
    first = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    cron = Cron("*/15 * * * *", "Europe/Bratislava")
    found = due(cron, first.astimezone(place), second.astimezone(place))
    assert found == due(cron, first, second)
    assert [window.end for window in found.windows] == [first + n * 15 * MINUTE for n in range(4)]


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        due(DAILY, on(2).replace(tzinfo=None), on(9))


# ---- cost


def test_three_days_of_a_minutely_schedule_take_less_than_a_second() -> None:
    start = process_time()
    found = due(MINUTELY, on(1, 6, 1), on(4), on(1), limit=10_000)
    assert len(found.windows) == 4320
    assert process_time() - start < 1


def test_latest_and_none_do_not_walk_through_what_they_skip() -> None:
    every_second, start = Cron("* * * * * *"), process_time()
    long_ago = datetime(1990, 1, 1, tzinfo=UTC)
    assert due(every_second, long_ago, on(4), None, catch_up=CatchUp.LATEST).windows == (
        Window(on(4) - SECOND, on(4)),
    )
    assert len(due(every_second, long_ago, on(4), None, catch_up=CatchUp.NONE).windows) == 60
    assert process_time() - start < 1


# ---- windows tile time

ZONES = ["Europe/Bratislava", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
CHANGES = [
    ("Europe/Bratislava", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Bratislava", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 3, 22, 2, tzinfo=UTC)),
]
FIRST_INSTANT, TWENTY_YEARS = datetime(2006, 1, 1, tzinfo=UTC), 7305 * DAY


def assert_tiled(found: Due, start: datetime, end: datetime) -> None:
    """No gap, no overlap, nothing empty, and the whole of [start, end] covered."""
    windows = found.windows
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert all(window.start < window.end for window in windows)
    assert windows[0].start <= start
    assert windows[-1].end <= end < found.next_run_at


def whole_span(cron: Cron, start: datetime, end: datetime) -> Due:
    return due(cron, cron.next(start), end, limit=10**9)


DAILY_AND_RARER = [
    *("30 2 * * *", "0 0 * * *", "59 1,2,3 * * *", "30 2 * * 0", "0 6 * * 1-5", "15 1 L * *"),
    *("0 3 29 2 *", "0 0 1 */3 *", "0 9 * * mon#2", "30 */12 * * *"),
]


ALL_ZONES = [*ZONES, "Asia/Kathmandu", "UTC"]


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(DAILY_AND_RARER), st.sampled_from(ALL_ZONES))
def test_twenty_years_of_a_daily_or_rarer_schedule_are_tiled(expression: str, name: str) -> None:
    assert_twenty_years(expression, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_ZONES)
@pytest.mark.parametrize("expression", DAILY_AND_RARER)
def test_twenty_years_of_every_such_schedule_in_every_zone_are_tiled(
    expression: str, name: str
) -> None:
    assert_twenty_years(expression, name)


def assert_twenty_years(expression: str, name: str) -> None:
    cron, end = Cron(expression, name), FIRST_INSTANT + TWENTY_YEARS
    found = whole_span(cron, FIRST_INSTANT, end)
    assert_tiled(found, cron.next(FIRST_INSTANT) - MICRO, end)
    sample = found.windows[:: max(1, len(found.windows) // 200)]
    assert [cron.previous(window.end) for window in sample] == [each.start for each in sample]


@pytest.mark.parametrize(("name", "change"), CHANGES)
@pytest.mark.parametrize("expression", ["0 * * * *", "45 */2 * * *", "30 1-3 * * *"])
def test_sixty_days_around_a_clock_change_are_tiled(
    expression: str, name: str, change: datetime
) -> None:
    start, end = change - 30 * DAY, change + 30 * DAY
    assert_tiled(whole_span(Cron(expression, name), start, end), start + 2 * DAY, end)


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_every_minute_around_a_clock_change_is_a_window(name: str, change: datetime) -> None:
    cron, start, end = Cron("* * * * *", name), change - 2 * DAY, change + 2 * DAY
    found = whole_span(cron, start, end)
    assert found.windows == tiles([start + n * MINUTE for n in range(4 * 1440 + 1)])


@pytest.mark.parametrize(
    "change",
    [
        CHANGES[5],
        *(pytest.param(one, marks=pytest.mark.slow) for one in CHANGES if one != CHANGES[5]),
    ],
)
def test_sixty_days_of_minutes_around_a_clock_change(change: tuple[str, datetime]) -> None:
    name, moment = change
    found = whole_span(Cron("* * * * *", name), moment - 30 * DAY, moment + 30 * DAY)
    assert len(found.windows) == 60 * 1440
    assert all(window.end - window.start == MINUTE for window in found.windows)
    assert_tiled(found, moment - 30 * DAY, moment + 30 * DAY)


# ---- ticking

EXPRESSIONS = ["0 * * * *", "30 */2 * * *", "*/20 1-3 * * *", "30 2 * * *", "0 6,14,22 * * *"]
WAITS = st.lists(st.integers(1, 30 * 3600), min_size=1, max_size=12)


def tick_through(
    cron: Cron, start: datetime, ticks: list[datetime], catch_up: CatchUp, limit: int
) -> list[Window]:
    """Tick at these instants, each until nothing is due, as the scheduler would store it."""
    next_run_at, last, windows = cron.next(start), None, list[Window]()
    for now in ticks:
        while next_run_at <= now:
            found = due(cron, next_run_at, now, last, catch_up=catch_up, limit=limit)
            assert found.next_run_at > next_run_at
            next_run_at = found.next_run_at
            windows += found.windows
            last = max((window.end for window in windows), default=None)
    return windows


def instants(start: datetime, waits: list[int]) -> list[datetime]:
    found = [start]
    for wait in waits:
        found.append(found[-1] + wait * SECOND)
    return found


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(CHANGES), WAITS, st.integers(1, 9))
def test_ticking_rarely_or_often_gives_the_same_windows(
    expression: str, change: tuple[str, datetime], waits: list[int], limit: int
) -> None:
    cron, start = Cron(expression, change[0]), change[1] - 3 * DAY
    ticks = instants(start, waits)
    often = tick_through(cron, start, ticks, CatchUp.ALL, limit)
    assert often == tick_through(cron, start, ticks[-1:], CatchUp.ALL, 10_000)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(CHANGES),
    WAITS,
    st.sampled_from([CatchUp.LATEST, CatchUp.NONE]),
)
def test_policies_that_skip_give_windows_of_the_full_set_and_none_twice(
    expression: str, change: tuple[str, datetime], waits: list[int], policy: CatchUp
) -> None:
    cron, start = Cron(expression, change[0]), change[1] - 3 * DAY
    ticks = instants(start, waits)
    kept = tick_through(cron, start, ticks, policy, 10_000)
    full = tick_through(cron, start, ticks, CatchUp.ALL, 10_000)
    assert kept == [window for window in full if window in set(kept)]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(CHANGES), st.integers(0, 6 * 86_400))
def test_setting_next_run_at_back_anywhere_makes_no_new_window(
    expression: str, change: tuple[str, datetime], seconds: int
) -> None:
    cron, start, end = Cron(expression, change[0]), change[1] - 3 * DAY, change[1] + 3 * DAY
    once, back = whole_span(cron, start - 2 * DAY, end), start + seconds * SECOND
    again = due(cron, back, end, once.windows[-1].end)
    assert again.windows == tuple(window for window in once.windows if window.end >= back)
    assert again.next_run_at == once.next_run_at

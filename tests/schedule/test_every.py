"""`@every 8h`: fixed windows without cron fields, anchored at local midnight."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.errors import CronInvalid
from pgqueue.schedule.cron import Cron
from pgqueue.schedule.windows import CatchUp, due_windows


def _at(text: str) -> datetime:
    return datetime.strptime(f"2026-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


# By hand from the zones' rules of 2026: see test_cron_zones.py.
TABLE = [
    ("@every 8h", "Europe/Bratislava", "3-28 15:00", "3-28 23:00", "3-29 06:00", "3-29 14:00"),
    ("@every 8h", "Europe/Bratislava", "10-24 22:00", "10-25 07:00", "10-25 15:00", "10-25 23:00"),
    ("@every 1h", "Europe/Bratislava", "10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00"),
    ("@every 2h", "Europe/Bratislava", "3-28 23:00", "3-29 01:00", "3-29 02:00", "3-29 04:00"),
    ("@every 12h", "America/New_York", "3-08 05:00", "3-08 16:00", "3-09 04:00"),
    ("@every 30m", "Australia/Lord_Howe", "4-04 14:30", "4-04 15:00", "4-04 15:30", "4-04 16:00"),
    ("@every 6h", "Asia/Kathmandu", "3-28 18:15", "3-29 00:15", "3-29 06:15"),
    ("@every 90m", "UTC", "1-01 00:00", "1-01 01:30", "1-01 03:00"),
    ("@every 24h", "UTC", "1-01 00:00", "1-02 00:00", "1-03 00:00"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row[:3]))
def test_it_fires_at_midnight_and_from_there_by_the_local_clock(row: tuple[str, ...]) -> None:
    cron, fires = Cron(row[0], row[1]), [_at(text) for text in row[2:]]
    assert [cron.next(fire) for fire in fires[:-1]] == fires[1:]
    assert [cron.previous(fire) for fire in fires[1:]] == fires[:-1]


def test_it_is_what_the_list_of_hours_is() -> None:
    every, hours = (
        Cron("@every 8h", "Europe/Bratislava"),
        Cron("0 0,8,16 * * *", "Europe/Bratislava"),
    )
    begin, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    assert list(every.between(begin, end)) == list(hours.between(begin, end))


@pytest.mark.parametrize("text", ["@every", "@every 0h", "@every 7h", "@every 25h", "@every 8d"])
def test_a_span_that_does_not_divide_a_day_is_refused(text: str) -> None:
    with pytest.raises(CronInvalid, match="divides a day"):
        Cron(text)


HOURS = Cron("0 * * * *")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@settings(deadline=None)
@given(
    missed=st.integers(0, 200),
    count=st.one_of(st.none(), st.integers(1, 250)),
    age=st.one_of(st.none(), st.integers(1, 200)),
    limit=st.integers(1, 300),
    late=st.integers(0, 3599),
)
def test_a_cap_on_catching_up_leaves_the_newest_windows_and_no_other(
    missed: int, count: int | None, age: int | None, limit: int, late: int
) -> None:
    """Whatever a pass may hold: the passes together give the newest, and they tile time."""
    now = NOON + timedelta(hours=missed, seconds=late)
    found, next_run_at, last = [], NOON, None
    while True:
        due = due_windows(
            HOURS,
            next_run_at,
            now,
            last_window_end=last,
            catch_up=CatchUp.ALL,
            limit=limit,
            max_age=None if age is None else timedelta(hours=age),
            max_count=count,
        )
        found += due.windows
        next_run_at, last = due.next_run_at, found[-1].end if found else None
        if next_run_at > now:
            break
    fires = [NOON + timedelta(hours=number) for number in range(missed + 1)]
    young = [fire for fire in fires if age is None or now - fire < timedelta(hours=age)]
    assert [window.end for window in found] == young[-count if count else 0 :]
    assert all(one.end == two.start for one, two in pairwise(found))

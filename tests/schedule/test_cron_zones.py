"""Fires around clock changes, written by hand from each zone's rules (all of 2026).

Europe/Bratislava    29 Mar 01:00Z +1 -> +2 (02:00 reads 03:00)    25 Oct 01:00Z +2 -> +1
America/New_York      8 Mar 07:00Z -5 -> -4 (02:00 reads 03:00)     1 Nov 06:00Z -4 -> -5
Australia/Lord_Howe   3 Oct 15:30Z +10:30 -> +11 (02:00 reads 02:30) 4 Apr 15:00Z +11 -> +10:30
Africa/Casablanca    15 Feb 02:00Z +1 -> +0 (03:00 reads 02:00)    22 Mar 02:00Z +0 -> +1
Asia/Beirut          24 Oct 21:00Z +3 -> +2 (24:00 reads 23:00)
America/Havana        1 Nov 05:00Z -4 -> -5 (01:00 reads 00:00)
Asia/Kathmandu       always +5:45
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgqueue.schedule.cron import Cron, zone

BRATISLAVA = "Europe/Bratislava"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
CASABLANCA = "Africa/Casablanca"
KATHMANDU = "Asia/Kathmandu"


def at(text: str) -> datetime:
    """`3-29 01:00` is that instant of 2026 in UTC; seconds may follow."""
    layout = "%Y-%m-%d %H:%M:%S" if text.count(":") == 2 else "%Y-%m-%d %H:%M"
    return datetime.strptime(f"2026-{text}", layout).replace(tzinfo=UTC)


TABLE = [
    # Bratislava, clocks forward: 02:00-02:59 local do not exist on 29 March.
    ("30 2 * * *", BRATISLAVA, "3-28 01:30", "3-29 01:00", "3-30 00:30"),
    ("0 2 * * *", BRATISLAVA, "3-28 01:00", "3-29 01:00", "3-30 00:00"),
    ("0,15,30 2 * * *", BRATISLAVA, "3-28 01:30", "3-29 01:00", "3-30 00:00", "3-30 00:15"),
    ("0 2,3 * * *", BRATISLAVA, "3-28 01:00", "3-28 02:00", "3-29 01:00", "3-30 00:00"),
    ("30 3 * * *", BRATISLAVA, "3-28 02:30", "3-29 01:30", "3-30 01:30"),
    ("0 * * * *", BRATISLAVA, "3-28 23:00", "3-29 00:00", "3-29 01:00", "3-29 02:00"),
    ("30 */2 * * *", BRATISLAVA, "3-28 21:30", "3-28 23:30", "3-29 02:30", "3-29 04:30"),
    ("* * * * *", BRATISLAVA, "3-29 00:58", "3-29 00:59", "3-29 01:00", "3-29 01:01"),
    ("59 1-3 * * *", BRATISLAVA, "3-29 00:59", "3-29 01:00", "3-29 01:59", "3-29 23:59"),
    ("30 2 * * 0", BRATISLAVA, "3-22 01:30", "3-29 01:00", "4-05 00:30"),
    ("0 6,14,22 * * *", BRATISLAVA, "3-28 21:00", "3-29 04:00", "3-29 12:00", "3-29 20:00"),
    # Bratislava, clocks back: 02:00-02:59 local come twice on 25 October.
    ("30 2 * * *", BRATISLAVA, "10-24 00:30", "10-25 00:30", "10-26 01:30"),
    ("0 3 * * *", BRATISLAVA, "10-24 01:00", "10-25 02:00", "10-26 02:00"),
    ("*/30 2 * * *", BRATISLAVA, "10-24 00:30", "10-25 00:00", "10-25 00:30", "10-26 01:00"),
    ("0 1-3 * * *", BRATISLAVA, "10-24 23:00", "10-25 00:00", "10-25 02:00", "10-26 00:00"),
    ("0 * * * *", BRATISLAVA, "10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00"),
    ("0 0-23 * * *", BRATISLAVA, "10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00"),
    ("@hourly", BRATISLAVA, "10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00"),
    ("30 */2 * * *", BRATISLAVA, "10-24 22:30", "10-25 00:30", "10-25 01:30", "10-25 03:30"),
    ("* * * * *", BRATISLAVA, "10-25 00:58", "10-25 00:59", "10-25 01:00", "10-25 01:01"),
    ("30 2 * * sun", BRATISLAVA, "10-18 00:30", "10-25 00:30", "11-01 01:30"),
    ("59 2 * * * 59", BRATISLAVA, "10-24 00:59:59", "10-25 00:59:59", "10-26 01:59:59"),
    # New York.
    ("30 2 * * *", NEW_YORK, "3-07 07:30", "3-08 07:00", "3-09 06:30"),
    ("0 * * * *", NEW_YORK, "3-08 05:00", "3-08 06:00", "3-08 07:00", "3-08 08:00"),
    ("* * * * *", NEW_YORK, "3-08 06:58", "3-08 06:59", "3-08 07:00"),
    ("0 9 * * 1", NEW_YORK, "3-02 14:00", "3-09 13:00", "3-16 13:00"),
    ("30 1 * * *", NEW_YORK, "10-31 05:30", "11-01 05:30", "11-02 06:30"),
    ("0 2 * * *", NEW_YORK, "10-31 06:00", "11-01 07:00", "11-02 07:00"),
    ("0 * * * *", NEW_YORK, "11-01 04:00", "11-01 05:00", "11-01 06:00", "11-01 07:00"),
    ("*/30 * * * *", NEW_YORK, "11-01 05:00", "11-01 05:30", "11-01 06:00", "11-01 06:30"),
    ("* * * * *", NEW_YORK, "11-01 05:58", "11-01 05:59", "11-01 06:00", "11-01 06:01"),
    ("30 1 * * 0", NEW_YORK, "10-25 05:30", "11-01 05:30", "11-08 06:30"),
    ("0 9 * * 1", NEW_YORK, "10-26 13:00", "11-02 14:00", "11-09 14:00"),
    ("0 0 L * *", NEW_YORK, "2-28 05:00", "3-31 04:00", "4-30 04:00"),
    ("0 12 * * 0#2", NEW_YORK, "2-08 17:00", "3-08 16:00", "4-12 16:00"),
    # Lord Howe: half an hour is skipped in October, and repeated in April.
    ("15 2 * * *", LORD_HOWE, "10-02 15:45", "10-03 15:30", "10-04 15:15"),
    ("30 2 * * *", LORD_HOWE, "10-02 16:00", "10-03 15:30", "10-04 15:30"),
    ("0 * * * *", LORD_HOWE, "10-03 14:30", "10-03 16:00", "10-03 17:00"),
    ("30 * * * *", LORD_HOWE, "10-03 14:00", "10-03 15:00", "10-03 15:30", "10-03 16:30"),
    ("* * * * *", LORD_HOWE, "10-03 15:28", "10-03 15:29", "10-03 15:30", "10-03 15:31"),
    ("0 2 * * 0", LORD_HOWE, "9-26 15:30", "10-03 15:30", "10-10 15:00"),
    ("45 1 * * *", LORD_HOWE, "4-03 14:45", "4-04 14:45", "4-05 15:15"),
    ("0 2 * * 0", LORD_HOWE, "3-28 15:00", "4-04 15:30", "4-11 15:30"),
    ("45 * * * *", LORD_HOWE, "4-04 13:45", "4-04 14:45", "4-04 15:15", "4-04 16:15"),
    ("0 * * * *", LORD_HOWE, "4-04 13:00", "4-04 14:00", "4-04 15:30", "4-04 16:30"),
    ("* * * * *", LORD_HOWE, "4-04 14:58", "4-04 14:59", "4-04 15:00", "4-04 15:01"),
    ("*/10 * * * *", LORD_HOWE, "4-04 14:40", "4-04 14:50", "4-04 15:00", "4-04 15:10"),
    # Casablanca: standard time is +1; in Ramadan the clocks go back to +0, then forward again.
    ("30 2 * * *", CASABLANCA, "2-14 01:30", "2-15 01:30", "2-16 02:30"),
    ("0 * * * *", CASABLANCA, "2-15 00:00", "2-15 01:00", "2-15 02:00", "2-15 03:00"),
    ("* * * * *", CASABLANCA, "2-15 01:58", "2-15 01:59", "2-15 02:00", "2-15 02:01"),
    ("0 9 * * 1", CASABLANCA, "2-09 08:00", "2-16 09:00", "2-23 09:00"),
    ("30 2 * * *", CASABLANCA, "3-21 02:30", "3-22 02:00", "3-23 01:30"),
    ("0 * * * *", CASABLANCA, "3-22 00:00", "3-22 01:00", "3-22 02:00", "3-22 03:00"),
    ("* * * * *", CASABLANCA, "3-22 01:58", "3-22 01:59", "3-22 02:00", "3-22 02:01"),
    ("0 9 * * 0", CASABLANCA, "3-15 09:00", "3-22 08:00", "3-29 08:00"),
    # Clocks that change at midnight: the day's last hour comes twice, or its first.
    ("30 * 24 7,10 *", "Asia/Beirut", "10-24 19:30", "10-24 20:30", "10-24 21:30"),
    ("30 * 1 1,11 *", "America/Havana", "11-01 04:30", "11-01 05:30", "11-01 06:30"),
    # No changes at all.
    ("0 6 * * *", KATHMANDU, "3-28 00:15", "3-29 00:15", "3-30 00:15"),
    ("0 * * * *", KATHMANDU, "3-29 00:15", "3-29 01:15", "3-29 02:15"),
    ("* * * * *", KATHMANDU, "3-29 00:59", "3-29 01:00", "3-29 01:01"),
    ("0 0 * * 1", KATHMANDU, "3-22 18:15", "3-29 18:15", "4-05 18:15"),
    ("30 2 * * *", "UTC", "3-28 02:30", "3-29 02:30", "3-30 02:30"),
    ("0 * * * *", "UTC", "10-25 00:00", "10-25 01:00", "10-25 02:00"),
    ("* * * * *", "UTC", "12-31 23:57", "12-31 23:58", "12-31 23:59"),
    ("0 0 * * 7", "UTC", "3-22 00:00", "3-29 00:00", "4-05 00:00"),
    ("* * * * * */20", "UTC", "1-01 00:00:00", "1-01 00:00:20", "1-01 00:00:40", "1-01 00:01"),
    ("0 6 * * * 30", "UTC", "1-01 06:00:30", "1-02 06:00:30", "1-03 06:00:30"),
    ("0 0 15W * *", "UTC", "7-15 00:00", "8-14 00:00", "9-15 00:00"),
    ("0 0 1,15 * fri", "UTC", "5-01 00:00", "5-08 00:00", "5-15 00:00", "5-22 00:00"),
]
ROWS = [pytest.param(row, id=" ".join(row[:3])) for row in TABLE]


@pytest.mark.parametrize("row", ROWS)
def test_next_gives_the_fires_of_the_zones_rules(row: tuple[str, ...]) -> None:
    cron, fires = Cron(row[0], row[1]), [at(text) for text in row[2:]]
    assert [cron.next(fire) for fire in fires[:-1]] == fires[1:]


@pytest.mark.parametrize("row", ROWS)
def test_previous_gives_the_same_fires_backwards(row: tuple[str, ...]) -> None:
    cron, fires = Cron(row[0], row[1]), [at(text) for text in row[2:]]
    assert [cron.previous(fire) for fire in fires[1:]] == fires[:-1]


@pytest.mark.parametrize("row", ROWS)
def test_between_takes_both_ends_in(row: tuple[str, ...]) -> None:
    cron, fires = Cron(row[0], row[1]), [at(text) for text in row[2:]]
    assert list(cron.between(fires[0], fires[-1])) == fires
    micro = timedelta(microseconds=1)
    assert list(cron.between(fires[0] + micro, fires[-1] - micro)) == fires[1:-1]


@pytest.mark.parametrize("minutes", [0, 1, 29, 30, 31, 59])
def test_within_the_repeated_hour_the_next_fire_is_tomorrows(minutes: int) -> None:
    cron = Cron("30 2 * * *", BRATISLAVA)
    moment = at("10-25 01:00") + timedelta(minutes=minutes)
    assert cron.next(moment) == at("10-26 01:30")
    assert cron.previous(moment) == at("10-25 00:30")


def test_a_day_that_a_zone_left_out_fires_once_when_the_clocks_jump() -> None:
    """Apia went from 29 to 31 December 2011 at 10:00Z: the 30th never was."""
    cron = Cron("0 6 * * *", "Pacific/Apia")
    utc = [
        datetime(2011, 12, day, hour, tzinfo=UTC) for day, hour in ((29, 16), (30, 10), (30, 16))
    ]
    assert [cron.next(fire) for fire in utc[:-1]] == utc[1:]
    assert [cron.previous(fire) for fire in utc[1:]] == utc[:-1]


@pytest.mark.parametrize("expression", ["0 * * * *", "* * * * *", "* * * * * *"])
def test_every_hour_goes_straight_over_a_left_out_day(expression: str) -> None:
    cron, jump = Cron(expression, "Pacific/Apia"), datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert cron.next(jump - timedelta(seconds=1)) == jump
    assert timedelta() < jump - cron.previous(jump) <= timedelta(hours=1)


def test_a_date_that_a_zone_left_out_fires_when_the_clocks_jump_over_it() -> None:
    cron = Cron("0 0 30 12 *", "Pacific/Apia")
    assert cron.next(datetime(2011, 12, 1, tzinfo=UTC)) == datetime(2011, 12, 30, 10, tzinfo=UTC)
    every_hour = Cron("0 * 30 12 *", "Pacific/Apia")
    found = every_hour.next(datetime(2011, 12, 1, tzinfo=UTC))
    assert found == datetime(2012, 12, 29, 10, tzinfo=UTC)


def test_instants_may_come_in_any_zone_and_go_out_in_utc() -> None:
    """Both ends of the repeated hour as a driver would return them: in the zone, told by fold."""
    cron = Cron("0 * * * *", BRATISLAVA)
    local = (
        at("10-25 00:00").astimezone(zone(BRATISLAVA)),
        at("10-25 01:00").astimezone(zone(BRATISLAVA)),
    )
    assert [cron.next(moment) for moment in local] == [at("10-25 01:00"), at("10-25 02:00")]
    assert list(cron.between(*local)) == [at("10-25 00:00"), at("10-25 01:00")]
    assert cron.next(local[0]).tzinfo is UTC

"""What a cron expression may say, what is refused and why, and what holds for all of them."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.errors import CronInvalid, ZoneInvalid
from pgqueue.schedule.cron import Cron, zone

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAYS_HINT = "allowed: 1-31, L or 15W"
WEEKDAYS_HINT = "allowed: 0-7 or sun-sat, 1#2 (second Monday) or L5 (last Friday)"
BESIDE = "fields 3 (day) and 5 (weekday): beside #, L or W the other must be *"
COUNT = "fields; needs 5 (minute hour day month weekday) or 6 (second last)"
NAMES = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, @every 8h"
NEVER = "it never fires: no date has all it asks for"

REFUSED = [
    ("", f"0 {COUNT}"),
    ("* * * *", f"4 {COUNT}"),
    ("0 0 1 1 * 0 2030", f"7 {COUNT}"),
    ("60 * * * *", "field 1 (minute) is '60'; allowed: 0-59"),
    ("-1 * * * *", "field 1 (minute) is '-1'; allowed: 0-59"),
    ("1,, * * * *", "field 1 (minute) is '1,,'; allowed: 0-59"),
    ("*/0 * * * *", "field 1 (minute) is '*/0'; allowed: 0-59"),
    ("\u0663 * * * *", "field 1 (minute) is '\u0663'; allowed: 0-59"),
    ("0 24 * * *", "field 2 (hour) is '24'; allowed: 0-23"),
    ("0 noon * * *", "field 2 (hour) is 'noon'; allowed: 0-23"),
    ("0 0 0 * *", f"field 3 (day) is '0'; {DAYS_HINT}"),
    ("0 0 L2 * *", f"field 3 (day) is 'L2'; {DAYS_HINT}"),
    ("0 0 * 13 *", "field 4 (month) is '13'; allowed: 1-12 or jan-dec"),
    ("0 0 * * 8", f"field 5 (weekday) is '8'; {WEEKDAYS_HINT}"),
    ("0 0 * * 1#6", f"field 5 (weekday) is '1#6'; {WEEKDAYS_HINT}"),
    ("0 0 * * 1,2#3", f"field 5 (weekday) is '1,2#3'; {WEEKDAYS_HINT}"),
    ("* * * * * 60", "field 6 (second) is '60'; allowed: 0-59"),
    ("0 5-5 * * *", "field 2 (hour) is '5-5': a range of one value; write 5"),
    ("H * * * *", "field 1 (minute) is 'H': H and R name no fixed time; write the number"),
    ("0 r(1-5) * * *", "field 2 (hour) is 'r(1-5)': H and R name no fixed time; write the number"),
    ("@reboot", f"no such name; known are {NAMES}"),
    ("0 0 1 * 1#1", BESIDE),
    ("0 0 1 * L5", BESIDE),
    ("0 0 15W * 1", BESIDE),
    ("0 0 30 2 *", NEVER),
    ("0 0 31 2,4,6,9,11 *", NEVER),
]


@pytest.mark.parametrize(("expression", "reason"), REFUSED)
def test_a_bad_expression_is_refused_when_made_and_the_place_is_named(
    expression: str, reason: str
) -> None:
    with pytest.raises(CronInvalid) as caught:
        Cron(expression)
    assert str(caught.value) == f"cron expression {expression!r} is not valid: {reason}"


@pytest.mark.parametrize("value", [None, 5, ["* * * * *"]])
def test_an_expression_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(CronInvalid, match="it must be text"):
        Cron(value)  # type: ignore[arg-type]  # what JSON may bring


def test_an_endless_expression_is_refused_without_being_read() -> None:
    with pytest.raises(CronInvalid, match="longer than 256 characters") as caught:
        Cron("1," * 1_000_000)
    assert len(str(caught.value)) < 200


BAD_ZONES = [
    *("", " UTC", "Europe", "europe/bratislava", "Mars/Base", "CEST", "UTC+2", "+02:00"),
    *(
        "../UTC",
        "/etc/localtime",
        "localtime",
        "posixrules",
        "right/UTC",
        "zone.tab",
        "\0",
        "\ud800",
    ),
    *(None, 2, ["UTC"]),
]


@pytest.mark.parametrize("name", BAD_ZONES)
def test_a_zone_that_is_no_iana_name_is_refused(name: object) -> None:
    with pytest.raises(ZoneInvalid) as caught:
        zone(name)
    hint = "use an IANA name such as 'Europe/Bratislava' or 'UTC'"
    assert str(caught.value) == f"time zone {str(name)!r} is not known: {hint}"


def test_a_schedule_in_an_unknown_zone_is_refused_when_made() -> None:
    with pytest.raises(ZoneInvalid, match="Mars/Base"):
        Cron("* * * * *", "Mars/Base")


@pytest.mark.parametrize(
    ("alias", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
        ("  0  6\t* * MON-fri ", "0 6 * * 1-5"),
        ("0\u00a06 * * *", "0 6 * * *"),
        ("0 6 ? jan-mar ?", "0 6 * 1-3 *"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("5/20 6 * * *", "5,25,45 6 * * *"),
        ("0 6 * * 7", "0 6 * * sun"),
        ("0 6 * * 0-7", "0 6 * * *"),
    ],
)
def test_spellings_of_one_schedule_fire_alike(alias: str, same: str) -> None:
    assert fires(Cron(alias), 40) == fires(Cron(same), 40)


def fires(cron: Cron, count: int, after: datetime = START) -> list[datetime]:
    return list(islice(cron.between(after, datetime.max.replace(tzinfo=UTC)), count))


def test_the_rarest_expression_is_accepted_and_found() -> None:
    assert Cron("0 0 29 2 *").next(START) == datetime(2028, 2, 29, tzinfo=UTC)
    assert Cron("0 0 * 2 1#5").next(START) == datetime(2044, 2, 29, tzinfo=UTC)


def test_the_31st_of_a_short_month_or_a_monday_fires_on_mondays() -> None:
    assert Cron("0 0 31 2 1").next(START) == datetime(2027, 2, 1, tzinfo=UTC)


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="has no time zone"):
        Cron("* * * * *").next(naive)
    with pytest.raises(ValueError, match="has no time zone"):
        Cron("* * * * *").previous(naive)


def test_strictly_after_and_before_hold_to_the_microsecond() -> None:
    cron, micro = Cron("0 6 * * *"), timedelta(microseconds=1)
    fire = datetime(2026, 3, 2, 6, tzinfo=UTC)
    assert cron.next(fire - micro) == cron.previous(fire + micro) == fire
    assert cron.next(fire) == fire + timedelta(days=1)
    assert cron.previous(fire) == fire - timedelta(days=1)


def test_a_cron_compares_by_its_text_and_survives_pickling() -> None:
    cron = Cron("0 6 * * *", "Europe/Bratislava")
    assert cron == Cron("0 6 * * *", "Europe/Bratislava") != Cron("0 6 * * *")
    again = pickle.loads(pickle.dumps(cron))  # noqa: S301 - our own bytes
    assert (again, again.next(START)) == (cron, cron.next(START))
    assert repr(cron) == "Cron(expression='0 6 * * *', timezone='Europe/Bratislava')"


def test_threads_may_share_one_cron() -> None:
    cron, together = Cron("*/7 * * * *", "Europe/Bratislava"), Barrier(4)
    moments = [START + 37 * MINUTE * n for n in range(2000)]
    alone, interval = {moment: cron.next(moment) for moment in moments}, sys.getswitchinterval()

    def walk(step: int) -> bool:
        together.wait()
        return all(cron.next(moment) == alone[moment] for moment in moments[::step])

    sys.setswitchinterval(1e-6)  # a switch at nearly every step: a shared walker loses its place
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(walk, (1, -1, 1, -1)))
    finally:
        sys.setswitchinterval(interval)


# ---- what holds for every expression, zone and instant

ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Bratislava", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"),
        *("Africa/Casablanca", "Europe/Dublin", "America/St_Johns", "Pacific/Apia", "Asia/Tehran"),
        *("Antarctica/Troll", "America/Caracas", "Africa/Monrovia", "Asia/Pyongyang"),
    ]
)
MOMENTS = st.integers(0, 70 * 365 * 86_400).map(lambda second: datetime.fromtimestamp(second, UTC))


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    chosen = st.lists(st.integers(low, high), min_size=1, max_size=3, unique=True)
    steps = st.integers(2, (high - low) // 2).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), steps, chosen.map(lambda some: ",".join(map(str, some))))


DAYS = st.one_of(
    st.tuples(numbers(1, 28), st.just("*"), numbers(0, 6)),
    st.tuples(st.sampled_from(["L", "15W", "1,L"]), numbers(1, 12), st.just("*")),
    st.tuples(st.just("*"), numbers(1, 12), st.sampled_from(["1#2", "L5", "fri#1,sat#4"])),
)
EXPRESSIONS = st.tuples(numbers(0, 59), numbers(0, 23), DAYS).map(
    lambda parts: " ".join([parts[0], parts[1], *parts[2]])
)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, ZONES, MOMENTS)
def test_next_goes_forward_and_previous_leads_back(
    expression: str, name: str, moment: datetime
) -> None:
    cron = Cron(expression, name)
    chain = fires(cron, 6, moment)
    assert moment <= chain[0]
    assert all(a < b for a, b in pairwise(chain))
    assert [cron.previous(fire) for fire in chain[1:]] == chain[:-1]
    assert cron.previous(chain[0]) < moment
    assert cron.next(cron.previous(moment)) >= moment


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, ZONES, st.lists(MOMENTS, min_size=2, max_size=2))
def test_a_later_instant_never_has_an_earlier_fire(
    expression: str, name: str, moments: list[datetime]
) -> None:
    cron, (early, late) = Cron(expression, name), sorted(moments)
    assert cron.next(early) <= cron.next(late)
    assert cron.previous(early) <= cron.previous(late)


# The reference is the rule itself, walked minute by minute over a day on each side of a change.
CHANGES = [
    ("Europe/Bratislava", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Bratislava", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 3, 22, 2, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Asia/Pyongyang", datetime(2015, 8, 14, 15, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
]
SOME_MINUTES = st.sets(st.integers(0, 59), min_size=1, max_size=4)
SOME_HOURS = st.sets(st.integers(0, 5) | st.integers(22, 23), min_size=1, max_size=4)


def minutes_around(change: datetime) -> list[datetime]:
    return [change + MINUTE * n for n in range(-1440, 1441)]


def listed(values: set[int]) -> str:
    return ",".join(map(str, sorted(values)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CHANGES), SOME_MINUTES, SOME_HOURS, st.integers(-200, 200))
def test_named_hours_fire_when_the_clocks_first_reach_each_local_time(
    change: tuple[str, datetime], minutes: set[int], hours: set[int], shift: int
) -> None:
    name, moment = change
    span, place, expected = minutes_around(moment), zone(name), set()
    furthest = span[0].astimezone(place).replace(tzinfo=None)
    for instant in span[1:]:
        while furthest < instant.astimezone(place).replace(tzinfo=None):
            furthest += MINUTE
            if furthest.hour in hours and furthest.minute in minutes:
                expected.add(instant)
    cron = Cron(f"{listed(minutes)} {listed(hours)} * * *", name)
    assert list(cron.between(span[1], span[-1])) == sorted(expected)
    between = moment + shift * MINUTE
    assert [*cron.between(between, span[-1])] == sorted(at for at in expected if at >= between)
    before = {at for at in expected if at < between}
    assert not before or cron.previous(between) == max(before)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CHANGES), SOME_MINUTES, st.sampled_from([1, 2, 3, 4, 6]))
def test_stepped_hours_fire_at_every_instant_that_reads_so(
    change: tuple[str, datetime], minutes: set[int], step: int
) -> None:
    name, moment = change
    span, place = minutes_around(moment), zone(name)
    local = [(instant, instant.astimezone(place)) for instant in span]
    expected = [i for i, at in local if at.minute in minutes and at.hour % step == 0]
    assert (
        list(Cron(f"{listed(minutes)} */{step} * * *", name).between(span[0], span[-1])) == expected
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(st.text("0159*/,-#LW?@hrmonjan .+_()\u00a0\u0663", max_size=5), max_size=7))
def test_any_text_is_a_cron_that_fires_or_is_refused(parts: list[str]) -> None:
    try:
        cron = Cron(" ".join(parts))
    except CronInvalid:
        return
    assert cron.next(START) > START > cron.previous(START)


def test_an_offset_that_is_not_utc_is_the_same_instant() -> None:
    abroad = START.astimezone(timezone(timedelta(hours=-7)))
    assert Cron("0 6 * * *").next(abroad) == Cron("0 6 * * *").next(START)

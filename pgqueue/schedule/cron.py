"""Cron expressions in a time zone, as pure functions of (expression, zone, instant).

Fields, as croniter reads them: `minute hour day month weekday`, and a sixth, `second`, which
stands last (`0 6 * * * 30` is 06:00:30). Names `@hourly @daily @midnight @weekly @monthly
@yearly @annually`; lists, ranges, steps, `L`, `15W`, `1#2`, `L5`, `mon`, `jan`, `?`. Day and
weekday both given mean either, as in every cron. `@every 8h` (or `90m`; it must divide a day) has
its fires at local midnight and every 8 hours by the local clock.

Daylight saving, the whole rule:

- Hours named (`30 2 * * *`, `0 8-18 * * *`): a fire is the first instant at which the zone's
  clocks have reached the local time. So a skipped time fires once, at the instant the clocks jump
  (several skipped times give one fire), and a repeated time fires the first time only.
- Every hour or a step of them (`*`, `*/n`, `0-23`, `@every` up to an hour): each real instant that
  reads so fires. A skipped time does not fire, a repeated one fires twice.

croniter only ever walks naive local times here; across transitions it follows neither rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadDateError, croniter

from pgqueue.errors import ConfigError, CronInvalid, ZoneInvalid
from pgqueue.tasks.values import EARLIEST, LATEST, checked_time

_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day", "1-31, L or 15W"),
    ("month", "1-12 or jan-dec"),
    ("weekday", "0-7 or sun-sat, 1#2 (second Monday) or L5 (last Friday)"),
    ("second", "0-59"),
)
_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_EVERY = re.compile(r"@every\s+(\d{1,4})([hm])", re.ASCII | re.IGNORECASE)
_MINUTES_AN_HOUR = 60
_MINUTES_A_DAY = 1440
_HOUR = 1
_LONGEST = 256
_ONE_VALUE = re.compile(r"(?:^|,)(\w+)-\1(?:/|,|$)", re.ASCII | re.IGNORECASE)
# A fixed start keeps the check independent of the day it is made on. The rarest expression that
# can fire (29 February on a fifth Monday) comes every 40 years at worst; croniter looks 50 ahead.
_CHECK_FROM = datetime(2000, 1, 1)  # noqa: DTZ001 - a local time of no zone
_MICRO = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def zone(name: object) -> ZoneInfo:
    """Return the IANA time zone of that name.

    Raises ZoneInvalid for all else, also for what a file system would still open: `localtime`
    differs from machine to machine, `right/UTC` counts leap seconds.
    """
    if not isinstance(name, str) or name not in _zone_names():
        raise ZoneInvalid(str(name)[:_LONGEST])
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    # Reading the zone folders takes tens of milliseconds: once per process.
    return frozenset(available_timezones() - {"localtime"})


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in an IANA zone, checked when made.

    Raises CronInvalid (naming the field at fault, or "never fires") and ZoneInvalid. Instants go
    in as aware datetimes and come out in UTC, on whole seconds. Equal if text and zone are equal.
    """

    expression: str
    timezone: str = "UTC"
    _parsed: _Parsed = field(init=False, repr=False, compare=False)
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parsed", _parse(_text(self.expression)))
        object.__setattr__(self, "_zone", zone(self.timezone))

    def next(self, after: datetime) -> datetime:
        """Return the first fire strictly after `after`, in UTC."""
        moment = utc(after).replace(microsecond=0)
        if self._parsed.every_hour:
            return self._next_reading(moment + _SECOND)
        return _reached(self._zone, self._parsed.later(_furthest(self._zone, moment)))

    def previous(self, before: datetime) -> datetime:
        """Return the last fire strictly before `before`, in UTC."""
        moment = (utc(before) - _MICRO).replace(microsecond=0)
        if self._parsed.every_hour:
            return self._previous_reading(moment)
        wall = _furthest(self._zone, moment) + _SECOND
        return _reached(self._zone, self._parsed.earlier(wall))

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the fires in [start, end], oldest first, in UTC."""
        fire, last = self.next(utc(start) - _MICRO), utc(end)
        while fire <= last:
            yield fire
            fire = self.next(fire)

    def _next_reading(self, moment: datetime) -> datetime:
        """Return the first instant at or after `moment` that reads as a matching local time.

        Goes from one span of constant offset to the next. Only the day after `moment` and the two
        before the candidate need a look: a local time comes a second time within a day, so a
        transition further in can show no matching time that the walk over local times has missed.
        """
        while True:
            offset = _offset(self._zone, moment)
            found = self._parsed.later(_wall(self._zone, moment) - _SECOND)
            candidate = found.replace(tzinfo=UTC) - offset
            edge = min(candidate, moment + _DAY)
            if _offset(self._zone, edge) != offset:
                moment = _turn(self._zone, moment, edge)
            elif edge == candidate:
                return candidate
            else:
                moment = max(edge, candidate - 2 * _DAY)

    def _previous_reading(self, moment: datetime) -> datetime:
        """Return the last instant at or before `moment` that reads as a matching local time."""
        while True:
            offset = _offset(self._zone, moment)
            found = self._parsed.earlier(_wall(self._zone, moment) + _SECOND)
            candidate = found.replace(tzinfo=UTC) - offset
            edge = max(candidate, moment - _DAY)
            if _offset(self._zone, edge) != offset:
                moment = _turn(self._zone, edge, moment) - _SECOND
            elif edge == candidate:
                return candidate
            else:
                moment = min(edge, candidate + 2 * _DAY)


class _Parsed(Protocol):
    """A walk over local times of no zone: the next one after `wall`, and the last one before."""

    @property
    def every_hour(self) -> bool: ...
    def later(self, wall: datetime) -> datetime: ...
    def earlier(self, wall: datetime) -> datetime: ...


class _Fields(NamedTuple):
    walker: croniter
    every_hour: bool

    # A croniter remembers where it stands, so each walk takes a copy: threads share the parsed one.
    def later(self, wall: datetime) -> datetime:
        found: datetime = copy(self.walker).get_next(datetime, start_time=wall)
        return found

    def earlier(self, wall: datetime) -> datetime:
        found: datetime = copy(self.walker).get_prev(datetime, start_time=wall)
        return found


class _Every(NamedTuple):
    minutes: int

    @property
    def every_hour(self) -> bool:
        return self.minutes <= _MINUTES_AN_HOUR

    def later(self, wall: datetime) -> datetime:
        midnight = datetime(wall.year, wall.month, wall.day)  # noqa: DTZ001 - a local time of no zone
        step = timedelta(minutes=self.minutes)
        return midnight + ((wall - midnight) // step + 1) * step

    def earlier(self, wall: datetime) -> datetime:
        midnight = datetime(wall.year, wall.month, wall.day)  # noqa: DTZ001 - a local time of no zone
        step = timedelta(minutes=self.minutes)
        return midnight + ((wall - midnight - _MICRO) // step) * step


@lru_cache(maxsize=4096)
def _parse(expression: str) -> _Parsed:
    """Return the checked expression; parsing costs some 100 us, a walk a third of that."""
    if expression.lower().startswith("@every"):
        return _Every(_every_minutes(expression))
    walker = croniter(_check(expression), _CHECK_FROM)
    _check_days(expression, walker)
    parsed = _Fields(walker, every_hour=_every_hour(walker))
    try:
        parsed.later(_CHECK_FROM)
    except CroniterBadDateError as error:
        raise CronInvalid(expression, "it never fires: no date has all it asks for") from error
    return parsed


def _every_minutes(expression: str) -> int:
    found = _EVERY.fullmatch(expression)
    minutes = 0 if found is None else int(found[1]) * (1 if found[2] in "mM" else _MINUTES_AN_HOUR)
    if not minutes or _MINUTES_A_DAY % minutes:
        raise CronInvalid(expression, "use @every 8h or @every 15m, a span that divides a day")
    return minutes


def _every_hour(walker: croniter) -> bool:
    # 0-23 expands to * and counts as such; 0-23/2 has named hours, */2 has not.
    return "*" in walker.expanded[_HOUR] or walker.expressions[_HOUR].startswith("*")


def _text(expression: object) -> str:
    if not isinstance(expression, str):
        raise CronInvalid(str(expression), "it must be text")
    if len(expression) > _LONGEST:
        raise CronInvalid(f"{expression[:40]}...", f"longer than {_LONGEST} characters")
    return expression.strip()


def _check(expression: str) -> str:
    """Return the expression with single blanks, each field tried by itself."""
    if expression.startswith("@"):
        return _check_alias(expression)
    fields = expression.split()
    if len(fields) not in (5, 6):
        raise CronInvalid(
            expression,
            f"{len(fields)} fields; needs 5 (minute hour day month weekday) or 6 (second last)",
        )
    for place in range(len(fields)):
        _check_field(expression, fields, place)
    return " ".join(fields)


def _check_alias(expression: str) -> str:
    if expression.lower() not in _ALIASES:
        raise CronInvalid(expression, f"no such name; known are {', '.join(_ALIASES)}, @every 8h")
    return expression


def _check_field(expression: str, fields: list[str], place: int) -> None:
    """Try one field with `*` in all the others: croniter does not say which one it refused."""
    text = fields[place]
    name, allowed = _FIELDS[place]
    where = f"field {place + 1} ({name}) is {text!r}"
    if text[0] in "hHrR":
        raise CronInvalid(expression, f"{where}: H and R name no fixed time; write the number")
    if twin := _ONE_VALUE.search(text):
        # croniter reads 5-5 as the whole field: a daily job would run every hour.
        raise CronInvalid(expression, f"{where}: a range of one value; write {twin[1]}")
    alone = ["*"] * len(fields)
    alone[place] = text
    try:
        croniter.expand(" ".join(alone))
    except ValueError as error:
        raise CronInvalid(expression, f"{where}; allowed: {allowed}") from error


def _check_days(expression: str, walker: croniter) -> None:
    # croniter silently drops the day beside 1#2 or L5, and the weekday beside 15W.
    _, _, day, _, weekday = walker.expanded[:5]
    if day == ["*"] or weekday == ["*"]:
        return
    if walker.nth_weekday_of_month or walker.nearest_weekday:
        raise CronInvalid(
            expression, "fields 3 (day) and 5 (weekday): beside #, L or W the other must be *"
        )


def utc(instant: datetime) -> datetime:
    """Return the instant in UTC; raises ValueError for a datetime without a zone.

    Not a nicety: two datetimes of one zone (what the driver returns) compare by their local time,
    which is wrong in a repeated hour.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone: an instant is an aware datetime")
    return instant.astimezone(UTC)


Moment = datetime | date
"""An aware datetime; a day is its first instant in the zone of its schedule."""


def instant_of(name: str, moment: Moment, timezone: str) -> datetime:
    """The moment in UTC; raises ConfigError, with its `name`, for what is none."""
    if isinstance(moment, date) and not isinstance(moment, datetime):
        if not EARLIEST.year <= moment.year <= LATEST.year:
            raise ConfigError(f"{name} {moment} is not valid: from the year 1970 to 9998")
        midnight = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - a local time
        return _reached(zone(timezone), midnight)
    checked = checked_time(name, moment)
    if checked is None:
        raise ConfigError(f"{name} is missing: use an aware datetime, or a date")
    return utc(checked)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _wall(zone: ZoneInfo, moment: datetime) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _furthest(zone: ZoneInfo, moment: datetime) -> datetime:
    """Return the latest local time that the zone's clocks have shown up to `moment`."""
    local = moment.astimezone(zone)
    if not local.fold:
        return local.replace(tzinfo=None)
    first = local.replace(fold=0).astimezone(UTC)
    return _wall(zone, _turn(zone, first, moment) - _SECOND)


def _reached(zone: ZoneInfo, wall: datetime) -> datetime:
    """Return the first instant at which the zone's clocks show `wall` or later.

    PEP 495: in a gap, fold=0 gives an instant after the transition, fold=1 one before it.
    """
    late = wall.replace(tzinfo=zone).astimezone(UTC)
    if _wall(zone, late) == wall:
        return late
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _turn(zone, early, late)


def _turn(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """Return the first second in (low, high] whose offset differs from the one at `low`.

    zoneinfo shows no list of transitions; halving a day takes 17 looks.
    """
    offset = _offset(zone, low)
    span = int((high - low).total_seconds())
    while span > 1:
        middle = low + timedelta(seconds=span // 2)
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
        span = int((high - low).total_seconds())
    return high

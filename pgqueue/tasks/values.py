"""What an option of a job may be: each check returns the value, or raises ConfigError."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from pgqueue.errors import ConfigError
from pgqueue.job import is_storable

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, tzinfo=UTC)
"""Times beyond cannot be read back in every time zone: one of them would stop whoever claims it."""

LONGEST = 100 * 366 * 86_400.0
LONGEST_WAIT = 86_400.0
"""Seconds."""

MOST_TAGS = 100
TAG_LIMIT = 200
"""Bytes."""

WITHOUT = "without NUL or lone surrogates"

SHOWN = 100
"""Characters of a refused text that its message repeats."""


def checked_priority(priority: Any) -> int:
    if type(priority) is not int or priority not in range(10):
        raise ConfigError(f"priority {priority!r} is not valid: 0 to 9, higher first")
    return priority


def checked_time(name: str, at: Any) -> datetime | None:
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise ConfigError(f"{name} {at!r} is not valid: use an aware datetime")
    if at.utcoffset() is None:
        raise ConfigError(f"{name} {at.isoformat()} has no time zone: use an aware datetime")
    if not EARLIEST <= at <= LATEST:
        raise ConfigError(f"{name} {at.isoformat()} is not valid: from the year 1970 to 9998")
    return at


def in_utc(at: datetime | None) -> datetime | None:
    """The same moment; the driver refuses offsets of odd seconds, which old local times have."""
    return None if at is None else at.astimezone(UTC)


def seconds_of(span: float | timedelta) -> float:
    """A span in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def checked_delay(delay: Any) -> float:
    if not _is_span(delay) or not 0 <= seconds_of(delay) <= LONGEST:
        raise ConfigError(f"delay {delay!r} is not valid: 0 seconds or more, 100 years at most")
    return seconds_of(delay)


def checked_span(name: str, span: Any, most: float = LONGEST) -> None:
    if not _is_span(span) or not 0 < seconds_of(span) <= most:
        limit = "100 years" if most == LONGEST else f"{most:g}"
        raise ConfigError(f"{name} {span!r} is not valid: more than 0 seconds, {limit} at most")


def _is_span(span: Any) -> bool:
    if isinstance(span, timedelta):
        return True
    # A bool is no number here, and an int may be too large for a float.
    is_number = isinstance(span, int | float) and not isinstance(span, bool)
    return is_number and -math.inf < span <= sys.float_info.max


def checked_text(name: str, text: Any, most: int) -> str | None:
    """Text that Postgres can store and index, of at most so many bytes."""
    if text is None:
        return None
    if not text or not is_storable(text):
        raise ConfigError(
            f"{name} {_shown(text)} is not valid: text of 1 to {most} bytes, {WITHOUT}"
        )
    if (size := len(text.encode())) > most:
        raise ConfigError(f"{name} has {size} bytes, and {most} is the most")
    return text


def checked_texts(name: str, texts: Any) -> tuple[str, ...]:
    listed = isinstance(texts, list | tuple | set | frozenset)
    if not listed or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{name} {_shown(texts)} is not valid: a list of strings")
    return tuple(texts)


def checked_tags(tags: Any) -> tuple[str, ...]:
    is_list = isinstance(tags, Iterable) and not isinstance(tags, str)
    tags = tuple(tags) if is_list else tags
    if not is_list or not all(isinstance(tag, str) for tag in tags):
        raise ConfigError(f"tags {_shown(tags)} are not valid: a list of strings")
    if len(tags) > MOST_TAGS:
        raise ConfigError(f"{len(tags):,} tags are too many: {MOST_TAGS} at most")
    for tag in tags:
        if not is_storable(tag) or len(tag.encode()) > TAG_LIMIT:
            raise ConfigError(
                f"tag {_shown(tag)} is not valid: text of at most {TAG_LIMIT} bytes, {WITHOUT}"
            )
    return tuple(dict.fromkeys(tags))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"

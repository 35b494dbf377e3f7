"""Topics and their sources: what a person sets up once, and the schedule that follows from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pgqueue.errors import ConfigError
from pgqueue.pipeline.extra import needs_pipeline
from pgqueue.pipeline.store import FIRST_USER, Desk, Row, desk

if TYPE_CHECKING:
    from pgqueue import PgQueue

WINDOW_TIMES = ("06:00", "14:00", "22:00")
DELAY = 600.0
"""Seconds from the end of a window to its job: feeds are not instant."""

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_NAME_LIMIT = 200
_URL_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """A topic that is stored: its id, whether it is new, when its next window ends (UTC)."""

    id: int
    is_new: bool
    next_run_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A source that is stored, the topic it belongs to, and whether it is new."""

    id: int
    topic_id: int
    is_new: bool


def schedule_name(topic_id: int) -> str:
    """The name of a topic's schedule."""
    return f"topic:{topic_id}"


def cron_of(times: Sequence[str]) -> str:
    """The cron expression of daily times such as 06:00; raises ConfigError.

    One expression has one minute for all its hours, so the times must share theirs.
    """
    found = [_TIME.fullmatch(time.strip()) for time in times]
    if not found or None in found:
        given = ", ".join(times)
        raise ConfigError(f"times {given!r} are not valid: use HH:MM, such as 06:00,14:00,22:00")
    pairs = sorted({(int(time[1]), int(time[2])) for time in found if time})
    if len({minute for _, minute in pairs}) > 1:
        raise ConfigError("times must be at the same minute of their hours, such as 06:30,18:30")
    return f"{pairs[0][1]} {','.join(str(hour) for hour, _ in pairs)} * * *"


def add_topic(
    pgq: PgQueue,
    name: str,
    *,
    timezone: str = "UTC",
    keywords: Sequence[str] = (),
    times: Sequence[str] = WINDOW_TIMES,
    embedder: str = "auto",
    delay: float = DELAY,
    user_id: int = FIRST_USER,
) -> StoredTopic:
    """Add a topic and its schedule, or change the one of that name, in one transaction.

    `delay` is in seconds. Raises ConfigError, ZoneInvalid for what is not valid.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= _NAME_LIMIT:
        raise ConfigError(f"topic name {name!r} is not valid: 1 to {_NAME_LIMIT} characters")
    cron = cron_of(times)
    _check_embedder(embedder)
    with desk(pgq, user_id) as at:
        topic = at.first(
            "put_topic",
            name=name,
            keywords=[word.strip() for word in keywords if word.strip()],
            window_times=[time.strip() for time in times],
            timezone=timezone,
            embedder=embedder,
        )
        if topic is None:
            raise ConfigError(f"topic {name!r} belongs to another user")
        schedule = pgq.put_schedule(
            schedule_name(topic["id"]),
            cron=cron,
            timezone=timezone,
            task="run-window",
            payload={"user_id": user_id, "topic_id": topic["id"]},
            delay=delay,
            connection=at.connection,
        )
    return StoredTopic(topic["id"], topic["is_new"], schedule.next_run_at)


def list_topics(pgq: PgQueue, *, user_id: int = FIRST_USER) -> list[Row]:
    """All topics of the user's organisation, each a mapping with the SQL column names."""
    with desk(pgq, user_id) as at:
        return at.rows("list_topics")


def add_source(
    pgq: PgQueue,
    url: str,
    *,
    topic: str,
    name: str = "",
    files_under: Path | None = None,
    user_id: int = FIRST_USER,
) -> StoredSource:
    """Add a feed to a topic, given by name or id; one that is there stays.

    A file: address is refused unless `files_under` names the folder that the worker may read from
    then on: that is for the operator's command line alone, never for an address that came from
    the web. Raises ConfigError.
    """
    url, canonical_url = _checked_url(url)
    file_root = _file_root(url, files_under)
    with desk(pgq, user_id) as at:
        found = topic_row(at, topic)
        source = at.first(
            "put_source",
            topic_id=found["id"],
            name=" ".join(name.split())[:_NAME_LIMIT],
            url=url,
            canonical_url=canonical_url,
            file_root=file_root,
        )
    assert source is not None  # noqa: S101 - an upsert without a condition returns its row
    return StoredSource(source["id"], found["id"], source["is_new"])


def list_sources(pgq: PgQueue, *, topic: str | None = None, user_id: int = FIRST_USER) -> list[Row]:
    """The sources of a topic, or of all, each a mapping with the SQL column names."""
    with desk(pgq, user_id) as at:
        topic_id = topic_row(at, topic)["id"] if topic is not None else None
        return at.rows("list_sources", topic_id=topic_id)


def topic_row(at: Desk, given: str) -> Row:
    """The topic of that name or id; raises ConfigError with what there is."""
    row = at.first("find_topic", given=given)
    if row is None:
        names = ", ".join(repr(topic["name"]) for topic in at.rows("list_topics"))
        known = f"the topics are {names}" if names else "add one with `pgq topics add NAME`"
        raise ConfigError(f"topic {given!r} does not exist: {known}")
    return row


def _check_embedder(name: str) -> None:
    if name == "auto":
        return
    with needs_pipeline(f"embedder {name!r}"):
        from pgqueue.pipeline.embed import choose  # noqa: PLC0415 - the extra's libraries
    choose(name)


def _checked_url(url: str) -> tuple[str, str]:
    with needs_pipeline("a source"):
        from pgqueue.pipeline.urls import canonical  # noqa: PLC0415 - the extra's libraries

    url = url.strip()
    canonical_url = canonical(url)
    plain = url.isprintable() and " " not in url
    if canonical_url is None or len(url) > _URL_LIMIT or not plain:
        raise ConfigError(f"source {url[:200]!r} is not valid: use the http(s) address of a feed")
    return url, canonical_url


def _file_root(url: str, files_under: Path | None) -> str | None:
    if not url.lower().startswith("file:"):
        return None
    if files_under is None:
        raise ConfigError("a file: source can only be added on the command line of the operator")
    path, root = Path(url2pathname(urlsplit(url).path)).resolve(), files_under.resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"the file {path} lies outside {root}")
    return str(root)

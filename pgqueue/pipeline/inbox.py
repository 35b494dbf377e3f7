"""The digests that a person reads."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pgqueue.errors import ConfigError, PgQueueError
from pgqueue.pipeline.store import FIRST_USER, Row, desk
from pgqueue.pipeline.topics import topic_row

if TYPE_CHECKING:
    from pgqueue import PgQueue


def list_digests(
    pgq: PgQueue, *, topic: str | None = None, limit: int = 20, user_id: int = FIRST_USER
) -> list[Row]:
    """The newest digests of a topic, or of all, without their bodies; newest first."""
    with desk(pgq, user_id) as at:
        topic_id = topic_row(at, topic)["id"] if topic is not None else None
        return at.rows("list_digests", topic_id=topic_id, n=limit)


def find_digest(
    pgq: PgQueue,
    *,
    digest_id: int | None = None,
    topic: str | None = None,
    window_end: datetime | None = None,
    user_id: int = FIRST_USER,
) -> Row | None:
    """The newest digest that fits what is given, with body, text and html; None without one."""
    with desk(pgq, user_id) as at:
        topic_id = topic_row(at, topic)["id"] if topic is not None else None
        return at.first("get_digest", digest_id=digest_id, topic_id=topic_id, window_end=window_end)


def get_digest(pgq: PgQueue, wanted: str, *, topic: str | None = None) -> Row:
    """A digest by its id, or the `latest`.

    Raises ConfigError for what is no id, PgQueueError when there is no such digest.
    """
    if wanted == "latest":
        row = find_digest(pgq, topic=topic)
        if row is None:
            raise PgQueueError(
                "there is no digest yet: run `pgq demo`, or `pgq worker` for a while"
            )
        return row
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 19):  # noqa: PLR2004 - bigint
        raise ConfigError(f"digest {wanted!r} is not valid: give its id, or 'latest'")
    row = find_digest(pgq, digest_id=int(wanted), topic=topic)
    if row is None:
        raise PgQueueError(f"digest {wanted} does not exist: `pgq inbox` lists them")
    return row

"""The stories that a person looks through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pgqueue.pipeline.extra import needs_pipeline
from pgqueue.pipeline.store import FIRST_USER, Desk, Row, desk
from pgqueue.pipeline.topics import topic_row

if TYPE_CHECKING:
    from pgqueue import PgQueue


def list_stories(
    pgq: PgQueue, *, topic: str | None = None, limit: int = 20, user_id: int = FIRST_USER
) -> list[Row]:
    """The stories of a topic, or of all, by SQL column names; the one with the newest item first.

    Raises ConfigError for an unknown topic.
    """
    with desk(pgq, user_id) as at:
        topic_id = topic_row(at, topic)["id"] if topic is not None else None
        return at.rows("list_stories", topic_id=topic_id, ids=None, n=limit)


def search_stories(
    pgq: PgQueue,
    text: str,
    *,
    topic: str | None = None,
    limit: int = 10,
    user_id: int = FIRST_USER,
) -> list[Row]:
    """The stories nearest to `text`, nearest first: rows as of `list_stories`, and two columns.

    `similarity` is the greatest cosine of its items to the text, in (0, 1]; `searched_by` is
    `pgvector` or `exact`. Each topic is searched with the embedder that it uses now; similarities
    of different embedders stand in one order without being of one scale. Raises ConfigError,
    ExtraMissing.
    """
    with needs_pipeline("searching stories"):
        from pgqueue.pipeline.embed import choose  # noqa: PLC0415 - the extra's libraries
        from pgqueue.pipeline.vectors import nearest_stories  # noqa: PLC0415 - the same
    with desk(pgq, user_id) as at:
        found: dict[int, Row] = {}
        for name, topic_ids in _by_embedder(_topics(at, topic)).items():
            nearest = nearest_stories(at, text, topic_ids=topic_ids, embedder=choose(name), n=limit)
            for story_id, similarity in nearest.stories:
                found[story_id] = {"similarity": similarity, "searched_by": nearest.way}
        rows = at.rows("list_stories", topic_id=None, ids=list(found), n=None)
    near = [{**row, **found[row["id"]]} for row in rows]
    return sorted(near, key=lambda row: (-row["similarity"], row["id"]))[:limit]


def _topics(at: Desk, given: str | None) -> list[Row]:
    wanted = topic_row(at, given)["id"] if given is not None else None
    return [topic for topic in at.rows("list_topics") if wanted in (None, topic["id"])]


def _by_embedder(topics: Iterable[Row]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for topic in topics:
        groups[topic["embedder"]].append(topic["id"])
    return groups

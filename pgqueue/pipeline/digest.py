"""The digest: which stories are told, in which order, and what is said of each.

Extractive: every point is a verbatim sentence (whitespace apart) of each item that it cites, so
nothing can be invented. Pure and deterministic: time comes from the window, order from
(published_at, id). The result is a JSON-able body, `DigestBody`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

import numpy as np

from pgqueue.pipeline.embed import Embedder, Matrix, Vector, unit_rows
from pgqueue.pipeline.points import DigestItem, DigestStory, Point, Telling, choose_points
from pgqueue.pipeline.sentences import clean_title
from pgqueue.pipeline.similar import in_order

__all__ = ["DigestBody", "DigestItem", "DigestStory", "Edition", "digest", "shown_items"]

VERSION = 1
PAST_DIGESTS = 7
HALF_LIFE_HOURS = 12
STORIES_PER_DIGEST = 10
WEIGHTS = {"publishers": 0.35, "relevance": 0.25, "recency": 0.20, "novelty": 0.20}

Reason = Literal["no items", "all seen", "sources failing"]


@dataclass(frozen=True)
class Edition:
    """What a digest is for, beside its stories.

    `past` are earlier bodies of the topic, without this window's own (the last 7 count for
    novelty); `seen` are ids of items shown in digests older than those, if any are known.
    """

    topic: str
    start: datetime
    end: datetime
    mode: str = "window"
    keywords: Sequence[str] = ()
    past: Sequence[Mapping[str, Any]] = ()
    seen: Collection[int] = frozenset()
    sources: int = 0
    sources_failing: int = 0
    limit: int = STORIES_PER_DIGEST


class CopyBody(TypedDict):
    item_id: int
    publisher: str
    url: str


class SourceBody(TypedDict):
    item_id: int
    title: str
    url: str
    publisher: str
    published_at: str
    new: bool
    copies: list[CopyBody]


class PointBody(TypedDict):
    text: str
    items: list[int]


class StoryBody(TypedDict):
    """One story; `items` are all item ids it stands for, `new_items` those not told before.

    `new_since` is null for a story told for the first time, else the end of the window whose
    digest told it last (ISO 8601, UTC).
    """

    story_id: int
    title: str
    status: str
    score: float
    score_parts: dict[str, float]
    points: list[PointBody]
    sources: list[SourceBody]
    publishers: int
    items: list[int]
    new_items: list[int]
    new_since: str | None


class DigestBody(TypedDict):
    """A digest. `reason` says why `stories` is empty and is null when it is not."""

    version: int
    topic: str
    window: dict[str, str]
    stories: list[StoryBody]
    reason: Reason | None
    counts: dict[str, int]


def digest(edition: Edition, stories: Iterable[DigestStory], embedder: Embedder) -> DigestBody:
    """Return the digest of the window: stories with something new, best first."""
    edition = replace(edition, seen=frozenset(edition.seen) | shown_items(edition.past))
    given = sorted(stories, key=lambda story: story.id)
    tellings = [telling for story in given if (telling := _telling(story, edition))]
    context = _Context(edition, embedder)
    told = sorted(
        (_tell(telling, context) for telling in tellings),
        key=lambda body: (-body["score"], body["story_id"]),
    )
    shown = told[: edition.limit]
    counts = _counts(edition, given, tellings, shown)
    return DigestBody(
        version=VERSION,
        topic=edition.topic,
        window={"start": _iso(edition.start), "end": _iso(edition.end), "mode": edition.mode},
        stories=shown,
        reason=None if shown else _reason(counts),
        counts=counts,
    )


def shown_items(bodies: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """Return the ids of all items that these digests stand for."""
    return frozenset(
        item for body in bodies for story in body["stories"] for item in story["items"]
    )


def _telling(story: DigestStory, edition: Edition) -> Telling | None:
    """Return what can be told of the story, or None when all of it was told before."""
    groups: dict[int, list[DigestItem]] = {}
    for item in in_order(story.items):
        key = item.id if item.duplicate_of is None else item.duplicate_of
        groups.setdefault(key, []).append(item)
    for key, group in groups.items():
        group.sort(key=lambda item: item.id != key)
    fresh = {
        group[0].id for group in groups.values() if not any(i.id in edition.seen for i in group)
    }
    if not fresh:
        return None
    return Telling(story, [(group[0], group[1:]) for group in groups.values()], fresh)


@dataclass
class _Context:
    """What all stories of an edition are measured against, embedded once."""

    edition: Edition
    embedder: Embedder
    topic: Vector = field(init=False)
    past: Matrix = field(init=False)
    last_told: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        words = " ".join([self.edition.topic, *self.edition.keywords])
        self.topic = self.embedder.embed([words])[0]
        newest = sorted(self.edition.past, key=lambda body: str(body["window"]["end"]))
        bodies = newest[-PAST_DIGESTS:]
        texts = [_text_of(story) for body in bodies for story in body["stories"]]
        self.past = self.embedder.embed(texts)
        self.last_told = {
            item: body["window"]["end"]
            for body in newest
            for story in body["stories"]
            for item in story["items"]
        }


def _tell(telling: Telling, context: _Context) -> StoryBody:
    story = telling.story
    title = _title(telling)
    points = choose_points(telling, title, context.embedder)
    parts = _score_parts(telling, title, points, context)
    told_before = [item.id for item in story.items if item.id in context.edition.seen]
    ends = [context.last_told[item] for item in told_before if item in context.last_told]
    return StoryBody(
        story_id=story.id,
        title=title,
        status=story.status,
        score=round(sum(parts.values()), 4),
        score_parts=parts,
        points=[PointBody(text=point.text, items=point.items) for point in points],
        sources=[_source(item, copies, telling.fresh) for item, copies in telling.groups],
        publishers=len(_publishers(story.items)),
        items=[item.id for item in in_order(story.items)],
        new_items=sorted(telling.fresh),
        new_since=max(ends, default=_iso(context.edition.start)) if told_before else None,
    )


def _title(telling: Telling) -> str:
    """Return the headline nearest the centroid; of a story told before, the nearest new one."""
    items = [item for item, _ in telling.groups if item.id in telling.fresh and item.title.strip()]
    if not items:
        first = telling.groups[0][0]
        return clean_title(first.title, first.publisher) or first.url
    links = np.array([item.vector for item in items]) @ telling.story.centroid
    best = items[int(links.argmax())]
    return clean_title(best.title, best.publisher)


def _score_parts(
    telling: Telling, title: str, points: Sequence[Point], context: _Context
) -> dict[str, float]:
    """Return the weighted parts of the score; their sum is the score."""
    own = context.embedder.embed(["\n".join([title, *(point.text for point in points)])])[0]
    newest = max(item.published_at for item, _ in telling.groups)
    hours = max(0.0, (context.edition.end - newest).total_seconds() / 3600)
    parts = {
        "publishers": math.log1p(len(_publishers(telling.story.items))),
        "relevance": max(0.0, float(unit_rows(telling.story.centroid) @ context.topic)),
        "recency": 0.5 ** (hours / HALF_LIFE_HOURS),
        "novelty": 1 - max(0.0, *(context.past @ own).tolist(), 0.0),
    }
    return {name: round(WEIGHTS[name] * value, 4) for name, value in parts.items()}


def _text_of(story: Mapping[str, Any]) -> str:
    return "\n".join([story["title"], *(point["text"] for point in story["points"])])


def _publishers(items: Iterable[DigestItem]) -> set[str]:
    """Return who reports: publishers by name, nameless ones by host."""
    return {item.publisher.strip().casefold() or _host(item.url) for item in items}


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _source(item: DigestItem, copies: Iterable[DigestItem], fresh: Collection[int]) -> SourceBody:
    return SourceBody(
        item_id=item.id,
        title=clean_title(item.title, item.publisher),
        url=item.url,
        publisher=item.publisher,
        published_at=_iso(item.published_at),
        new=item.id in fresh,
        copies=[CopyBody(item_id=c.id, publisher=c.publisher, url=c.url) for c in copies],
    )


def _counts(
    edition: Edition,
    given: Sequence[DigestStory],
    tellings: Sequence[Telling],
    shown: Sequence[StoryBody],
) -> dict[str, int]:
    items = [item for story in given for item in story.items]
    return {
        "items": len(items),
        "new_items": sum(len(telling.fresh) for telling in tellings),
        "copies": sum(item.duplicate_of is not None for item in items),
        "stories": len(shown),
        "stories_seen": sum(bool(story.items) for story in given) - len(tellings),
        "stories_left_out": len(tellings) - len(shown),
        "sources": edition.sources,
        "sources_failing": edition.sources_failing,
    }


def _reason(counts: Mapping[str, int]) -> Reason:
    if counts["items"]:
        return "all seen"
    all_fail = counts["sources_failing"] and counts["sources_failing"] >= counts["sources"]
    return "sources failing" if all_fail else "no items"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

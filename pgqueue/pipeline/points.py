"""The points of a story: sentences of its items, picked by score and by being different.

Score: 0.45 cosine to the centroid + 0.35 cosine to the leads + 0.20 e^(-position/4). Picked by
maximal marginal relevance (Carbonell and Goldstein 1998), lambda 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from pgqueue.pipeline.embed import Embedder, Matrix, Vector, unit_rows
from pgqueue.pipeline.sentences import normal, split, word_count

POINTS_PER_STORY = 3
MIN_WORDS, MAX_WORDS = 6, 60
CENTROID, LEADS, POSITION = 0.45, 0.35, 0.20
POSITION_SCALE = 4
MMR = 0.7
# From here on a sentence says again what is already said.
SAME = 0.9
# Bounds for a story of hundreds of long articles: sentences per item, items per story.
SENTENCES_PER_ITEM, ITEMS_PER_STORY = 40, 50

_BOILERPLATE = re.compile(
    r"""^(?:read\ (?:more|the\ full|also)|click\ here|subscribe|sign\ up|follow\ us|share\ this
        |continue\ reading|copyright|all\ rights\ reserved|photo(?:graph)?:|image:|source:|©)
    |appeared\ first\ on|(?:continue|keep)\ reading\W*$|read\ more\W*$
    |(?:\u2026|\.\.\.|\[\u2026\]|\[\.\.\.\])\]?$""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, eq=False)
class DigestItem:
    """An item of a story; a copy names its original in `duplicate_of`. `lang` is ISO 639."""

    id: int
    title: str
    url: str
    publisher: str
    published_at: datetime
    text: str
    vector: Vector
    lang: str = "en"
    duplicate_of: int | None = None


@dataclass(frozen=True, eq=False)
class DigestStory:
    """A story with all its items, the copies too; `centroid` as `cluster` made it."""

    id: int
    centroid: Vector
    status: str
    items: Sequence[DigestItem]


@dataclass(frozen=True, eq=False)
class Telling:
    """What is told of a story: (original, its copies) in order; `fresh` originals are new."""

    story: DigestStory
    groups: Sequence[tuple[DigestItem, Sequence[DigestItem]]]
    fresh: Collection[int]


@dataclass(frozen=True)
class Point:
    """A sentence and the ids of the items in which it stands verbatim."""

    text: str
    items: list[int]


@dataclass(frozen=True)
class _Candidate:
    text: str
    position: int


def choose_points(telling: Telling, title: str, embedder: Embedder) -> list[Point]:
    """Return up to three points from what is new in the story, best first.

    Where the new items have no usable sentence, their other headlines are taken.
    """
    items = [item for item, _ in telling.groups if item.id in telling.fresh][:ITEMS_PER_STORY]
    found = _unique(_sentences(items)) or _unique(_headlines(items, title))
    if not found:
        return []
    vectors = embedder.embed([candidate.text for candidate in found])
    scores = _scores(found, vectors, telling.story.centroid)
    picked = _pick(vectors, scores, embedder.embed([title]))
    points = [_cited(found[at].text, telling) for at in picked]
    # Only text that is no valid Unicode could be cited by nothing; then it is not told.
    return [point for point in points if point.items]


def _sentences(items: Sequence[DigestItem]) -> Iterator[_Candidate]:
    for item in items:
        sentences = split(item.text, item.lang)[:SENTENCES_PER_ITEM]
        for position, sentence in enumerate(sentences):
            if MIN_WORDS <= word_count(sentence) <= MAX_WORDS and not _BOILERPLATE.search(sentence):
                yield _Candidate(sentence, position)


def _headlines(items: Sequence[DigestItem], title: str) -> Iterator[_Candidate]:
    for item in items:
        headline = normal(item.title)
        if title not in headline and MIN_WORDS <= word_count(headline) <= MAX_WORDS:
            yield _Candidate(headline, 0)


def _unique(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return list(first.values())


def _scores(found: Sequence[_Candidate], vectors: Matrix, centroid: Vector) -> Vector:
    positions = np.array([candidate.position for candidate in found], np.float32)
    # No lead among the candidates (too short, boilerplate): the earliest sentences stand in.
    leads = unit_rows(vectors[positions == positions.min()].mean(axis=0))
    early = np.exp(-positions / POSITION_SCALE)
    near = CENTROID * (vectors @ unit_rows(centroid)) + LEADS * (vectors @ leads)
    return (near + POSITION * early).astype(np.float32)


def _pick(vectors: Matrix, scores: Vector, title: Matrix) -> list[int]:
    """Return the rows chosen; the title counts as said already."""
    picked: list[int] = []
    said = (vectors @ title.T)[:, 0]
    while len(picked) < min(POINTS_PER_STORY, len(scores)):
        worth = np.where(said < SAME, MMR * scores - (1 - MMR) * said, -np.inf)
        best = int(worth.argmax())
        if worth[best] == -np.inf:
            break
        picked.append(best)
        said = np.maximum(said, vectors @ vectors[best])
        said[best] = 1.0
    return picked


def _cited(text: str, telling: Telling) -> Point:
    items = [item for first, copies in telling.groups for item in (first, *copies)]
    return Point(text, [item.id for item in items if stands_in(text, item)])


def stands_in(text: str, item: DigestItem) -> bool:
    """Return whether the item says `text` verbatim, whitespace apart."""
    return text in normal(item.text) or text in normal(item.title)

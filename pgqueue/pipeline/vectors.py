"""The stories nearest to a text: through pgvector where it is there, exactly in numpy where not.

pgvector only picks candidates, by half precision. They are ranked like all vectors are without it,
by the float32 of `content.embeddings`: what both ways find has the same similarity. On small data
they find the same; an HNSW index is approximate on large: among 10,000 texts of random words it
found 92 % of the ten nearest stories, in 41 ms instead of 346 (hash-2048, 2 cores).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from psycopg.rows import tuple_row

from pgqueue.errors import ConfigError
from pgqueue.pipeline.embed import Embedder, Vector, from_bytes
from pgqueue.pipeline.store import Desk

MOST_STORIES = 100
"""How many may be asked for: their candidates must fit into pgvector's greatest ef_search, 1000."""

CANDIDATES = 8
"""Items that pgvector is asked for, for each story that is wanted: a story has many items."""

# Default 40; with 200 it was 87 % of those ten.
_EF_SEARCH = 400
_BATCH = 1_000

Way = Literal["pgvector", "exact"]
Vectors = Iterable[tuple[int, bytes]]
"""Story ids and the vector of one of their items."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Story ids with their similarities in (0, 1], nearest first; and how they were found."""

    stories: list[tuple[int, float]]
    way: Way


def nearest_stories(
    at: Desk, text: str, *, topic_ids: Sequence[int], embedder: Embedder, n: int
) -> Nearest:
    """The up to `n` stories of these topics that have an item near to `text`.

    A story's similarity is the greatest cosine of its items; stories with none above 0 are left
    out. Only items of this embedder's model are compared. Raises ConfigError for a text without a
    word, and when `n` is not 1 to 100.
    """
    if not 1 <= n <= MOST_STORIES:
        raise ConfigError(f"{n} stories cannot be asked for: 1 to {MOST_STORIES}")
    (wanted,) = embedder.embed([text])
    if not wanted.any():
        raise ConfigError(f"nothing can be searched for in {text[:80]!r}: give some words")
    params = {"model": embedder.name, "topic_ids": list(topic_ids)}
    ranking = _by_pgvector(at, wanted, params, n)
    if ranking is not None:
        return Nearest(_first(ranking, n), "pgvector")
    return Nearest(_first(_ranking(_all_vectors(at, params), wanted), n), "exact")


def _by_pgvector(
    at: Desk, wanted: Vector, params: dict[str, Any], n: int
) -> dict[int, float] | None:
    """None where pgvector is not, or has fewer stories than wanted among its candidates."""
    statement, found = f"nearest_{len(wanted)}", at.first("pgvector_schema")
    if statement not in at.sql or found is None:
        return None
    candidates = n * CANDIDATES
    at.rows("aim_pgvector", **found, ef_search=str(max(_EF_SEARCH, candidates)))
    with at.connection.cursor(row_factory=tuple_row) as cursor:
        # Prepared, it could get a plan for any model, and an index is of one.
        cursor.execute(
            at.sql[statement],
            {**params, "wanted": wanted.tolist(), "n": candidates},
            prepare=False,
            binary=True,
        )
        ranking = _ranking(cursor, wanted)
    return ranking if len(ranking) >= n else None


def _all_vectors(at: Desk, params: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    # Named: the rows stay with the server and come in batches.
    with at.connection.cursor("pgqueue_vectors", row_factory=tuple_row) as cursor:
        cursor.itersize = _BATCH
        cursor.execute(at.sql["all_vectors"], params, binary=True)
        yield from cursor


def _ranking(vectors: Vectors, wanted: Vector) -> dict[int, float]:
    """Each story's greatest cosine to the wanted unit row."""
    best: dict[int, float] = {}
    for story_id, vec in vectors:
        similarity = float(np.dot(from_bytes(vec), wanted))
        best[story_id] = max(similarity, best.get(story_id, -1.0))
    return best


def _first(ranking: dict[int, float], n: int) -> list[tuple[int, float]]:
    near = [(story_id, similarity) for story_id, similarity in ranking.items() if similarity > 0]
    return sorted(near, key=lambda one: (-one[1], one[0]))[:n]

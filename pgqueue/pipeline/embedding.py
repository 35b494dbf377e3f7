"""Stage 2: vectors for the window's items, in batches that are kept whatever happens next."""

from __future__ import annotations

from typing import Any

from pgqueue.events import emit
from pgqueue.pipeline.embed import Embedder, Matrix, choose, text_of, to_bytes
from pgqueue.pipeline.events import ItemsEmbedded
from pgqueue.pipeline.stage import Connection, Counts, Run

BATCH = 256


def embed_items(run: Run) -> None:
    """Embed what has no vector of this model yet; the checkpoint names the model."""
    run.start("embed")
    embedder = choose(run.window.model or run.topic.embedder)
    new = 0
    while batch := _next_batch(run, embedder.name):
        run.check_stop()
        vectors = embedder.embed([text_of(item["title"], item["text"]) for item in batch])
        with run.transaction() as connection:
            run.rows(connection, "touch_window")
            _insert(run, connection, embedder, [item["id"] for item in batch], vectors)
        new += len(batch)
        emit(ItemsEmbedded(run.window.id, len(batch)))
    run.commit(
        "embed",
        lambda connection: _counts(run, connection, embedder.name, new),
        model=embedder.name,
    )


def _insert(
    run: Run, connection: Connection, embedder: Embedder, item_ids: list[int], vectors: Matrix
) -> None:
    run.rows(
        connection,
        "insert_embeddings",
        model=embedder.name,
        dim=embedder.dim,
        item_ids=item_ids,
        vectors=[to_bytes(vector) for vector in vectors],
    )
    # Asked after the insertion: until it is committed, use_pgvector() cannot make its copy.
    if run.rows(connection, "pgvector_schema"):
        run.rows(connection, "fill_item_vectors", model=embedder.name, item_ids=item_ids)


def _next_batch(run: Run, model: str) -> list[dict[str, Any]]:
    with run.transaction() as connection:
        return run.rows(connection, "items_without_embedding", model=model, n=BATCH)


def _counts(run: Run, connection: Connection, model: str, new: int) -> Counts:
    return {**run.row(connection, "count_embedded", model=model), "new": new}

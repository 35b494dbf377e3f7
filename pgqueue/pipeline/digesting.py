"""Stage 4: the digest of the window, made once; empty ones say why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pgqueue.pipeline.digest import PAST_DIGESTS, DigestBody, Edition, digest
from pgqueue.pipeline.embed import choose, from_bytes
from pgqueue.pipeline.points import DigestItem, DigestStory
from pgqueue.pipeline.render import render_html, render_text
from pgqueue.pipeline.stage import Connection, Counts, Run
from pgqueue.schedule.cron import zone


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is read in one go; `revision` as in clustering."""

    revision: int
    edition: Edition
    stories: list[DigestStory]


def write_digest(run: Run) -> None:
    """Write it without a transaction, store it under the topic's lock."""
    run.start("digest")
    embedder = choose(run.window.model or run.topic.embedder)
    with run.transaction() as connection:
        inputs = _read(run, connection)
    body = digest(inputs.edition, inputs.stories, embedder)
    run.check_stop()
    run.commit("digest", lambda connection: _write(run, connection, inputs, body))


def _read(run: Run, connection: Connection) -> _Inputs:
    revision = run.row(connection, "topic_revision")["revision"]
    past = run.rows(connection, "past_digests", n=PAST_DIGESTS)
    # Only as many are read in full as count for novelty. Of what is older every item is taken for
    # told, those too that had no room then: after so long they are no news.
    oldest = past[-1]["window_end"] if len(past) == PAST_DIGESTS else None
    rows = run.rows(connection, "stories_of_window", oldest_past=oldest)
    edition = _edition(run, [row["body"] for row in past], rows)
    return _Inputs(revision, edition, list(_stories(rows)))


def _edition(run: Run, past: list[Mapping[str, Any]], rows: list[dict[str, Any]]) -> Edition:
    sources = run.window.counts.get("ingest", {})
    return Edition(
        topic=run.topic.name,
        start=run.window.items_since,
        end=run.window.window_end,
        mode=run.window.mode,
        keywords=run.topic.keywords,
        past=past,
        seen=frozenset(row["id"] for row in rows if row["is_old"]),
        sources=sources.get("sources", 0),
        sources_failing=sources.get("failing", 0),
    )


def _stories(rows: list[dict[str, Any]]) -> Iterator[DigestStory]:
    for story_id, group in groupby(rows, key=lambda row: int(row["story_id"])):
        items = list(group)
        yield DigestStory(
            id=story_id,
            centroid=from_bytes(items[0]["centroid"]),
            status=items[0]["status"],
            items=[_item(row) for row in items],
        )


def _item(row: dict[str, Any]) -> DigestItem:
    return DigestItem(
        id=row["id"],
        title=row["title"],
        url=row["url"],
        publisher=row["publisher"],
        published_at=row["published_at"],
        text=row["text"],
        vector=from_bytes(row["vec"]),
        lang=row["lang"],
        duplicate_of=row["duplicate_of"],
    )


def _write(run: Run, connection: Connection, inputs: _Inputs, body: DigestBody) -> Counts | None:
    run.rows(connection, "lock_topic")
    if run.row(connection, "topic_revision")["revision"] != inputs.revision:
        return None
    run.rows(connection, "raise_revision")
    local = zone(run.topic.timezone)
    run.rows(
        connection,
        "insert_digest",
        title=_title(run, body),
        body=json.dumps(body),
        text=render_text(body, zone=local),
        html=render_html(body, zone=local),
    )
    run.rows(
        connection,
        "score_stories",
        story_ids=[story["story_id"] for story in body["stories"]],
        scores=[story["score"] for story in body["stories"]],
    )
    return body["counts"]


def _title(run: Run, body: DigestBody) -> str:
    return body["stories"][0]["title"] if body["stories"] else f"{run.topic.name}: {body['reason']}"

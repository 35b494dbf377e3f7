"""Stage 3: the window's items become stories, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pgqueue.pipeline.cluster import Item, Known, Merge, Plan, Story, cluster
from pgqueue.pipeline.embed import choose, from_bytes, to_bytes
from pgqueue.pipeline.stage import Connection, Counts, Run

COPIES_WITHIN = timedelta(days=7)
"""How far before the window copies are looked for."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is read in one go; `revision` tells whether it still holds when the plan is written."""

    revision: int
    items: list[Item]
    stories: list[Story]
    known: list[Known]


def cluster_items(run: Run) -> None:
    """Plan without a transaction, write under the topic's lock if nothing has changed since."""
    run.start("cluster")
    embedder = choose(run.window.model or run.topic.embedder)
    with run.transaction() as connection:
        inputs = _read(run, connection)
    plan = cluster(
        inputs.items,
        inputs.stories,
        inputs.known,
        join=embedder.join,
        merge=embedder.merge,
        window_end=run.window.window_end,
    )
    run.check_stop()
    run.commit("cluster", lambda connection: _write(run, connection, inputs, plan))


def _read(run: Run, connection: Connection) -> _Inputs:
    # The revision first: what changes after it was read is noticed when the plan is written.
    revision = run.row(connection, "topic_revision")["revision"]
    since = run.window.items_since - COPIES_WITHIN
    return _Inputs(
        revision,
        [_item(row) for row in run.rows(connection, "items_without_story")],
        [_story(row) for row in run.rows(connection, "active_stories")],
        [Known(**row) for row in run.rows(connection, "known_items", since=since)],
    )


def _item(row: dict[str, Any]) -> Item:
    return Item(vector=from_bytes(row.pop("vec")), **row)


def _story(row: dict[str, Any]) -> Story:
    return Story(
        id=row["id"],
        centroid=from_bytes(row["centroid"]),
        count=row["item_count"],
        copies=row["copy_count"],
        first_item_at=row["first_item_at"],
        last_item_at=row["last_item_at"],
        status=row["status"],
        title=row["title"],
    )


def _write(run: Run, connection: Connection, inputs: _Inputs, plan: Plan) -> Counts | None:
    run.rows(connection, "lock_topic")
    if run.row(connection, "topic_revision")["revision"] != inputs.revision:
        return None
    run.rows(connection, "raise_revision")
    ids = {story.id: _write_story(run, connection, story) for story in plan.stories}
    for merge in plan.merges:
        _write_merge(run, connection, merge)
    _write_assignments(run, connection, plan, ids)
    return {
        "items": len(plan.assignments),
        "stories": len({assignment.story_id for assignment in plan.assignments}),
        "new_stories": sum(story.id < 0 for story in plan.stories),
        "copies": sum(one.duplicate_of is not None for one in plan.assignments),
        "merges": len(plan.merges),
    }


def _write_story(run: Run, connection: Connection, story: Story) -> int:
    """Returns the story's id in the table; a new one has none before."""
    name = "insert_story" if story.id < 0 else "change_story"
    rows = run.rows(
        connection,
        name,
        id=story.id,
        title=story.title,
        status=story.status,
        centroid=to_bytes(story.centroid),
        item_count=story.count,
        copy_count=story.copies,
        first_item_at=story.first_item_at,
        last_item_at=story.last_item_at,
    )
    return int(rows[0]["id"]) if rows else story.id


def _write_merge(run: Run, connection: Connection, merge: Merge) -> None:
    run.rows(connection, "move_story_items", winner=merge.winner, loser=merge.loser)
    run.rows(connection, "merge_story", winner=merge.winner, loser=merge.loser)


def _write_assignments(run: Run, connection: Connection, plan: Plan, ids: dict[int, int]) -> None:
    run.rows(
        connection,
        "insert_story_items",
        story_ids=[ids.get(one.story_id, one.story_id) for one in plan.assignments],
        item_ids=[one.item_id for one in plan.assignments],
        similarities=[one.similarity for one in plan.assignments],
    )
    copies = [(one.item_id, one.duplicate_of) for one in plan.assignments if one.duplicate_of]
    run.rows(
        connection,
        "mark_duplicates",
        item_ids=[item for item, _ in copies],
        originals=[original for _, original in copies],
    )

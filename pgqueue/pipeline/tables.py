"""The content pipeline's schema in SQLAlchemy Core; in the same Alembic history as the queue's.

Constraints are named as in the migration; CHECKs stand there alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL
from sqlalchemy.types import TypeEngine

_TIME = DateTime(timezone=True)


def content_metadata(schema: str) -> MetaData:
    """The tables of the content pipeline in the schema of that name."""
    metadata = MetaData(schema=schema)
    _owner_tables(metadata)
    _topic_tables(metadata)
    _item_tables(metadata)
    _story_tables(metadata)
    _digest_table(metadata)
    return metadata


def _required(name: str, kind: TypeEngine[Any], default: str | None = None) -> Column[Any]:
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default)


def _identity() -> Column[int]:
    return Column("id", BigInteger, Identity(always=False), nullable=False)


def _created() -> Column[Any]:
    return _required("created_at", _TIME, "clock_now()")


def _key(table: str, *columns: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint(*columns, name=f"{table}_pkey")


def _fkey(
    metadata: MetaData, table: str, column: str, target: str, ondelete: str | None = None
) -> ForeignKeyConstraint:
    name = f"{table}_{column.removesuffix('_id').removesuffix('_of').removesuffix('_into')}_fkey"
    place = f"{metadata.schema}.{target}.id"
    return ForeignKeyConstraint([column], [place], name=name, ondelete=ondelete)


def _owned(metadata: MetaData, table: str) -> list[Any]:
    """Whose the row is: two columns, two foreign keys."""
    return [
        _required("org_id", BigInteger()),
        _required("user_id", BigInteger()),
        _fkey(metadata, table, "org_id", "organizations"),
        _fkey(metadata, table, "user_id", "users"),
    ]


def _of_topic(metadata: MetaData, table: str) -> list[Any]:
    """Whose the row is and of which topic, with which it goes."""
    return [
        *_owned(metadata, table),
        _required("topic_id", BigInteger()),
        _fkey(metadata, table, "topic_id", "topics", "CASCADE"),
    ]


def _owner_tables(metadata: MetaData) -> None:
    Table(
        "organizations",
        metadata,
        _identity(),
        _required("name", Text()),
        _required("max_active_jobs", Integer(), "50"),
        _created(),
        _key("organizations", "id"),
    )
    Table(
        "users",
        metadata,
        _identity(),
        _required("org_id", BigInteger()),
        _required("name", Text()),
        _created(),
        _key("users", "id"),
        _fkey(metadata, "users", "org_id", "organizations"),
    )


def _topic_tables(metadata: MetaData) -> None:
    Table(
        "topics",
        metadata,
        _identity(),
        *_owned(metadata, "topics"),
        _required("name", Text()),
        _required("keywords", ARRAY(Text), "'{}'"),
        _required("window_times", ARRAY(Text), "'{06:00,14:00,22:00}'"),
        _required("timezone", Text(), "'UTC'"),
        _required("embedder", Text(), "'auto'"),
        _required("revision", BigInteger(), "0"),
        _created(),
        _key("topics", "id"),
        UniqueConstraint("org_id", "name", name="topics_name_key"),
    )
    Table(
        "sources",
        metadata,
        _identity(),
        *_of_topic(metadata, "sources"),
        _required("kind", Text(), "'rss'"),
        _required("name", Text(), "''"),
        _required("url", Text()),
        _required("canonical_url", Text()),
        Column("file_root", Text),
        _required("enabled", Boolean(), "true"),
        Column("etag", Text),
        Column("last_modified", Text),
        Column("moved_to", Text),
        _required("moved_count", Integer(), "0"),
        Column("next_poll_at", _TIME),
        Column("last_polled_at", _TIME),
        _required("failures", Integer(), "0"),
        _required("health", Text(), "'new'"),
        Column("last_error", Text),
        _created(),
        _key("sources", "id"),
        UniqueConstraint("topic_id", "kind", "canonical_url", name="sources_once"),
    )
    Table(
        "windows",
        metadata,
        _identity(),
        *_of_topic(metadata, "content_windows"),
        _required("window_start", _TIME),
        _required("window_end", _TIME),
        _required("mode", Text(), "'window'"),
        _required("items_since", _TIME),
        _required("stage", Text(), "'started'"),
        Column("model", Text),
        _required("counts", JSONB(), "'{}'"),
        _required("milliseconds", JSONB(), "'{}'"),
        Column("error", Text),
        _created(),
        _required("updated_at", _TIME, "clock_now()"),
        Column("finished_at", _TIME),
        _key("content_windows", "id"),
        UniqueConstraint(
            "topic_id", "window_start", "window_end", "mode", name="content_windows_once"
        ),
    )


def _item_tables(metadata: MetaData) -> None:
    items = Table(
        "items",
        metadata,
        _identity(),
        *_of_topic(metadata, "items"),
        Column("source_id", BigInteger),
        Column("window_id", BigInteger),
        _required("late", Boolean(), "false"),
        Column("url", Text),
        Column("canonical_url", Text),
        Column("guid", Text),
        _required("title", Text()),
        Column("author", Text),
        Column("published_at", _TIME),
        _required("first_seen_at", _TIME),
        _required("belongs_at", _TIME),
        _required("text", Text()),
        Column("lang", Text),
        _required("content_hash", Text()),
        _required("dedupe_key", Text()),
        Column("duplicate_of", BigInteger),
        _key("items", "id"),
        _fkey(metadata, "items", "source_id", "sources", "SET NULL"),
        _fkey(metadata, "items", "window_id", "windows", "SET NULL"),
        _fkey(metadata, "items", "duplicate_of", "items", "SET NULL"),
        UniqueConstraint("topic_id", "dedupe_key", name="items_once"),
    )
    columns, unclaimed = items.c, text("window_id is null")
    Index("items_waiting", columns.topic_id, columns.belongs_at, postgresql_where=unclaimed)
    Index("items_window", columns.window_id)
    Index("items_source", columns.source_id)
    Index("items_duplicate_of", columns.duplicate_of)
    Index("items_recent", columns.topic_id, columns.belongs_at)
    Table(
        "embeddings",
        metadata,
        _required("item_id", BigInteger()),
        _required("model", Text()),
        *_owned(metadata, "embeddings"),
        _required("dim", Integer()),
        _required("vec", LargeBinary()),
        _key("embeddings", "item_id", "model"),
        _fkey(metadata, "embeddings", "item_id", "items", "CASCADE"),
    )


def _story_tables(metadata: MetaData) -> None:
    stories = Table(
        "stories",
        metadata,
        _identity(),
        *_of_topic(metadata, "stories"),
        _required("title", Text()),
        _required("status", Text(), "'developing'"),
        _required("model", Text()),
        _required("centroid", LargeBinary()),
        _required("item_count", Integer()),
        _required("copy_count", Integer(), "0"),
        _required("first_item_at", _TIME),
        _required("last_item_at", _TIME),
        Column("score", Double),
        Column("merged_into", BigInteger),
        _created(),
        _key("stories", "id"),
        _fkey(metadata, "stories", "merged_into", "stories", "SET NULL"),
    )
    living = text("status <> 'closed' and merged_into is null")
    Index("stories_active", stories.c.topic_id, stories.c.model, postgresql_where=living)
    Index("stories_merged_into", stories.c.merged_into)
    story_items = Table(
        "story_items",
        metadata,
        _required("story_id", BigInteger()),
        _required("item_id", BigInteger()),
        *_of_topic(metadata, "story_items"),
        _required("similarity", REAL()),
        _key("story_items", "story_id", "item_id"),
        _fkey(metadata, "story_items", "story_id", "stories", "CASCADE"),
        _fkey(metadata, "story_items", "item_id", "items", "CASCADE"),
        UniqueConstraint("topic_id", "item_id", name="story_items_once"),
    )
    Index("story_items_item", story_items.c.item_id)


def _digest_table(metadata: MetaData) -> None:
    digests = Table(
        "digests",
        metadata,
        _identity(),
        *_of_topic(metadata, "digests"),
        _required("window_id", BigInteger()),
        _required("window_start", _TIME),
        _required("window_end", _TIME),
        _required("mode", Text(), "'window'"),
        _required("title", Text()),
        _required("body", JSONB()),
        _required("text", Text()),
        _required("html", Text()),
        _required("rev", Integer(), "1"),
        _required("high_water_at", _TIME),
        _created(),
        _key("digests", "id"),
        _fkey(metadata, "digests", "window_id", "windows", "CASCADE"),
        UniqueConstraint("topic_id", "window_start", "window_end", "mode", name="digests_once"),
    )
    Index("digests_window", digests.c.window_id)

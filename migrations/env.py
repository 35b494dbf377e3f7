"""Alembic's entry: which tables, which schema, one transaction, one lock."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from pgqueue.db.tables import queue_metadata
from pgqueue.db.upgrade import engine_of
from pgqueue.pipeline.tables import content_metadata
from pgqueue.settings import read_settings
from pgqueue.sql import content_schema, quoted_schema

# pgqueue.db.upgrade hands the settings over; the bare `alembic` command reads the environment.
settings = context.config.attributes.get("settings") or read_settings()
schema: str = settings.schema_name
content = content_schema(schema)
CREATE_SCHEMA = f"create schema if not exists {quoted_schema(schema)}"
COMMON: dict[str, Any] = {
    "target_metadata": [queue_metadata(schema), content_metadata(content)],
    "version_table_schema": schema,
    "include_schemas": True,
    "compare_type": True,
}


def ours(name: str | None, kind: str, parents: Any) -> bool:
    """Only our two schemas, without our version table, day partitions and pgvector's."""
    if kind == "schema":
        return name in (schema, content)
    if kind == "table" and name is not None:
        # `item_vectors` is there only where pgvector is.
        others = ("alembic_version", "item_vectors")
        return name not in others and not name.startswith("finished_jobs_")
    return True


def run_offline() -> None:
    # With the dialect's own style of parameters every `%` of a function's body would be doubled.
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        include_name=ours,
        **COMMON,
    )
    context.get_context().impl.static_output(CREATE_SCHEMA + ";\n")
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    # Two deploys may migrate at once: the second waits here and finds nothing left to do. The lock
    # goes with the transaction, and so do all migrations: all of them or none.
    lock = text("select pg_advisory_xact_lock(hashtextextended(:key, 0))")
    connection.execute(lock, {"key": f"pgqueue migrate {schema}"})
    # A role named like our schema has it as its default, and Alembic tells no name of that one: all
    # our tables would seem to be missing.
    connection.execute(text("set local search_path to pg_catalog"))
    connection.dialect.default_schema_name = "pg_catalog"
    if not context.config.attributes.get("checking"):
        connection.execute(text(CREATE_SCHEMA))
    context.configure(connection=connection, include_name=ours, **COMMON)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    with engine_of(context.config.attributes.get("url") or settings.database_url).begin() as db:
        run_on(db)


if context.is_offline_mode():
    run_offline()
else:
    run_online()

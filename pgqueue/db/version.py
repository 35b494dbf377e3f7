"""Which revision the database is at, and whether this code can work with it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from pgqueue.errors import NotMigrated, SchemaTooNew
from pgqueue.sql import rendered

SCHEMA_VERSION = 8
"""What `schema_info.version` must be at least; raised by the migration that this code needs."""

KNOWN_REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")


def found_revision(connection: psycopg.Connection[Any], schema: str) -> str | None:
    """The Alembic revision of our schema; None when there are no tables of ours."""
    quoted = rendered("pgqueue.alembic_version", schema)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("select to_regclass(%s) is not null", [quoted])
        (exists,) = cursor.fetchone() or (False,)
        if not exists:
            return None
        cursor.execute(f"select version_num from {quoted}")  # noqa: S608 - a checked identifier
        row = cursor.fetchone()
        return row[0] if row else None


def check_version(connection: psycopg.Connection[Any], schema: str) -> None:
    """Raise NotMigrated or SchemaTooNew unless this code can work with the database.

    A newer schema is fine as long as its `min_compatible` says so: that lets old workers live
    through a rolling deploy. A revision that we do not know and that no newer schema row vouches
    for is not ours to touch.
    """
    revision = found_revision(connection, schema)
    if revision is None:
        raise NotMigrated(schema)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(rendered("select version, min_compatible from pgqueue.schema_info", schema))
        row = cursor.fetchone()
    if row is None:
        raise NotMigrated(schema, revision)
    version, min_compatible = row
    if min_compatible > SCHEMA_VERSION:
        raise SchemaTooNew(schema, f"version {version} (revision {revision})")
    if version < SCHEMA_VERSION:
        raise NotMigrated(schema, revision)
    if revision not in KNOWN_REVISIONS and version == SCHEMA_VERSION:
        raise SchemaTooNew(schema, f"revision {revision}")

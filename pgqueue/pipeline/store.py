"""The way to the pipeline's tables for what is no job: one user's view of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from pgqueue.errors import ConfigError, NotMigrated
from pgqueue.sql import load

if TYPE_CHECKING:
    from pgqueue import PgQueue

FIRST_USER = 1
"""Who owns what the command line makes."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """One transaction of one user; `owner` is put into every statement's parameters."""

    connection: psycopg.Connection[Any]
    sql: Mapping[str, str]
    owner: Mapping[str, int]

    def rows(self, statement: str, /, **params: Any) -> list[Row]:
        """The rows that the named statement answers with, each by column name."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(self.sql[statement], {**self.owner, **params})
            return cursor.fetchall() if cursor.description else []

    def first(self, statement: str, /, **params: Any) -> Row | None:
        """The first row, or None."""
        return next(iter(self.rows(statement, **params)), None)


@contextmanager
def desk(pgq: PgQueue, user_id: int = FIRST_USER) -> Iterator[Desk]:
    """A transaction for this user; raises NotMigrated, and ConfigError when nobody has the id."""
    sql = load("pgqueue.pipeline.sql", pgq.settings.schema_name)
    try:
        with pgq.connection() as connection, connection.transaction():
            owner = Desk(connection, sql, {}).first("owner", user_id=user_id)
            if owner is None:
                raise ConfigError(f"user {user_id} does not exist")
            yield Desk(connection, sql, owner)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise NotMigrated(pgq.settings.schema_name) from None

"""Fixtures of the project's own tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgqueue.db import upgrade
from pgqueue.embedded.wheel import find_binaries
from pgqueue.settings import normalised_url, read_settings
from project import dumping

Dump = Callable[[], str]
Move = Callable[..., str | None]


@pytest.fixture
def dump(empty_database: str) -> Dump:
    """Dumps the schema of `empty_database`; skips where server and pg_dump differ in version."""
    with psycopg.connect(empty_database) as connection:
        server = connection.info.server_version // 10_000
        pgvector = connection.execute(
            "select from pg_available_extensions where name = 'vector'"
        ).fetchone()
    ours = find_binaries().major
    if server != ours:
        pytest.skip(
            f"the snapshot is pg_dump {ours}'s view of its own server; this one is {server}"
        )
    if pgvector is None:
        pytest.skip("the snapshot is that of a server with pgvector; this one has none")
    return lambda: dumping.dumped(empty_database)


@pytest.fixture
def move(empty_database: str) -> Move:
    """Migrates `empty_database` to a revision."""
    url = normalised_url(empty_database)
    return lambda to="head": upgrade.move(read_settings(database_url=url), url, to)


@pytest.fixture
def psql() -> Path:
    return find_binaries().bin / "psql"


@pytest.fixture(scope="session")
def session_database(server_url: str, template_database: str) -> str:
    """The URL of a migrated database for tests that only look."""
    return make_conninfo(normalised_url(server_url), dbname=template_database)

"""Fixtures for every room's tests: a server, and a fresh database on it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgqueue import PgQueue, embedded
from pgqueue.db import upgrade
from pgqueue.settings import normalised_url, read_settings

# Started in the background of a script, a run would hand its ignored SIGINT down to every command
# it starts, and Ctrl-C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: an example of a millisecond has taken more than the 200 that are the
# default. The rest is as it is, in CI the same examples each time.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# A machine that loses power in the middle of a test run has lost nothing but the test run.
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A server to make databases on: PGQUEUE_TEST_DATABASE_URL, or one of our own."""
    given = os.environ.get("PGQUEUE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Not pytest's own folder: as root the server runs as another user, who cannot reach it.
    directory = Path(tempfile.mkdtemp(prefix="pgqtest-", dir="/tmp"))
    try:
        with embedded.start(directory, _settings=UNSAFE_BUT_FAST) as server:
            yield server.url
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a database that nobody has used yet; dropped afterwards, whoever is connected."""
    name = f"test_{secrets.token_hex(6)}"
    _run(server_url, sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        yield _with_database(server_url, name)
    finally:
        _run(server_url, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    name = f"template_{secrets.token_hex(6)}"
    _run(server_url, sql.SQL("create database {}").format(sql.Identifier(name)))
    url = _with_database(server_url, name)
    upgrade.move(read_settings(database_url=url), normalised_url(url))
    yield name
    _run(server_url, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database(server_url: str, template_database: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    statement = sql.SQL("create database {} template {}")
    _run(server_url, statement.format(sql.Identifier(name), sql.Identifier(template_database)))
    try:
        yield _with_database(server_url, name)
    finally:
        _run(server_url, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def pgq(database: str) -> Iterator[PgQueue]:
    """An app of its own on a fresh, migrated database."""
    app = PgQueue(database)
    yield app
    app.close()


def _run(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _with_database(url: str, name: str) -> str:
    if "://" not in url:
        return make_conninfo(url, dbname=name)
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", url)

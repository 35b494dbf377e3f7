"""Databases that do not keep their text in UTF-8."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgqueue import PgQueue
from pgqueue.db import upgrade
from pgqueue.engine.enqueue import COPY_FROM
from pgqueue.settings import read_settings

TRICKY = 'é\\\t"\n'


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database in that encoding."""
    name = sql.Identifier(f"test_{secrets.token_hex(6)}")
    made = sql.SQL("create database {} encoding {} locale 'C' template template0")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(made.format(name, sql.Literal(request.param)))
        url = make_conninfo(server_url, dbname=name.as_string().strip('"'))
        upgrade.move(read_settings(database_url=url), url)
        yield url
        connection.execute(sql.SQL("drop database {} with (force)").format(name))


def test_jobs_live_their_life_in_a_database_of_any_encoding(encoded: str) -> None:
    app = PgQueue(encoded)

    @app.task
    async def echo(text: str) -> str:
        return text

    job = echo.enqueue(text=TRICKY)
    some = echo.enqueue_many([{"text": TRICKY}] * 2)
    many = echo.enqueue_many([{"text": TRICKY}] * COPY_FROM)
    asyncio.run(app.worker(burst=True, scheduler=False).run())
    assert app.result(job, timeout=5) == TRICKY
    app.close()
    with psycopg.connect(encoded, client_encoding="utf8") as connection:
        found = connection.execute(
            "select payload ->> 'text', result #>> '{}', count(*) "
            "from pgqueue.finished_jobs group by 1, 2"
        ).fetchall()
    assert found == [(TRICKY, TRICKY, 1 + len(some) + len(many))]

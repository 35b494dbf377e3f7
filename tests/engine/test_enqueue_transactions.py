"""A job enqueued through the caller's connection lives and dies with the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pgqueue import PgQueue
from pgqueue.errors import ConfigError
from pgqueue.tasks.task import Task
from proving import value


@pytest.fixture
def greet(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def greet(name: str) -> None: ...

    return greet


@pytest.fixture
def alchemy(database: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database))
    yield engine
    engine.dispose()


def _jobs(database: str) -> int:
    count: int = value(database, "select count(*) from pgqueue.jobs")
    return count


@pytest.mark.parametrize("rows", [1, 2])
def test_psycopg_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None], rows: int
) -> None:
    with psycopg.connect(database) as connection:
        for _ in range(2):
            here = greet.using(connection=connection)
            if rows > 1:
                here.enqueue_many([{"name": "a"}, {"name": "b"}])
            else:
                here.enqueue("a")
            assert _jobs(database) == 0, "seen before the caller committed"
            connection.rollback()
        assert _jobs(database) == 0
        here.enqueue("a")
        connection.commit()
    assert _jobs(database) == 1


async def test_async_psycopg_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None]
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await greet.using(connection=connection).aenqueue("a")
        await greet.using(connection=connection).aenqueue_many([{"name": "b"}])
        await connection.rollback()
        assert _jobs(database) == 0
        await greet.using(connection=connection).aenqueue("a")
        assert _jobs(database) == 0
        await connection.commit()
    assert _jobs(database) == 1


def test_sqlalchemy_connection_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None], alchemy: sa.Engine
) -> None:
    with alchemy.connect() as connection:
        greet.using(connection=connection).enqueue("a")
        connection.rollback()
        assert _jobs(database) == 0
    with alchemy.begin() as connection:
        connection.execute(sa.text("create table own (x int)"))
        greet.using(connection=connection).enqueue("a")
        assert _jobs(database) == 0
    assert _jobs(database) == 1


def test_sqlalchemy_connection_that_said_nothing_yet_still_commits_the_job(
    database: str, greet: Task[None], alchemy: sa.Engine
) -> None:
    with alchemy.connect() as connection:
        greet.using(connection=connection).enqueue("a")
        connection.commit()
    assert _jobs(database) == 1


def test_sqlalchemy_session_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None], alchemy: sa.Engine
) -> None:
    with Session(alchemy) as session:
        greet.using(connection=session).enqueue("a")
        session.rollback()
        assert _jobs(database) == 0
        greet.using(connection=session).enqueue("a")
        assert _jobs(database) == 0
        session.commit()
    assert _jobs(database) == 1


def test_a_job_enqueued_in_an_aborted_savepoint_is_gone(database: str, greet: Task[None]) -> None:
    with psycopg.connect(database) as connection:
        greet.using(connection=connection).enqueue("kept")
        with connection.transaction(force_rollback=True):
            greet.using(connection=connection).enqueue("dropped")
    assert value(database, "select payload from pgqueue.jobs") == {"name": "kept"}


def test_a_connection_of_another_driver_is_refused_by_name(greet: Task[None]) -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(ConfigError) as refused:
        greet.using(connection=connection).enqueue("a")
    connection.close()
    assert str(refused.value) == (
        "connection=sqlite3.Connection cannot be used by enqueue: it takes a psycopg.Connection, "
        "SQLAlchemy Connection or Session on psycopg 3 (postgresql+psycopg://)"
    )


async def test_an_async_connection_is_refused_by_enqueue_and_a_sync_one_by_aenqueue(
    database: str, greet: Task[None]
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(
            ConfigError, match=r"psycopg.*AsyncConnection cannot be used by enqueue"
        ):
            greet.using(connection=connection).enqueue("a")
    with (
        psycopg.connect(database) as connection,
        pytest.raises(
            ConfigError, match=r"psycopg.*Connection cannot be used by aenqueue: it takes"
        ),
    ):
        await greet.using(connection=connection).aenqueue("a")


def test_an_sqlalchemy_engine_is_refused(alchemy: sa.Engine, greet: Task[None]) -> None:
    with pytest.raises(ConfigError, match="Engine cannot be used by enqueue"):
        greet.using(connection=alchemy).enqueue("a")


def test_a_sqlalchemy_connection_to_another_database_is_refused(greet: Task[None]) -> None:
    engine = sa.create_engine("sqlite://")
    with (
        engine.connect() as connection,
        pytest.raises(ConfigError, match="Connection cannot be used by enqueue"),
    ):
        greet.using(connection=connection).enqueue("a")
    engine.dispose()

"""The caller's transaction, through SQLAlchemy's asyncio part."""

from __future__ import annotations

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.tasks.task import Task
from proving import value

pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio part needs greenlet")

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine


@pytest.fixture
def greet(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def greet(name: str) -> None: ...

    return greet


def _async_engine(database: str) -> AsyncEngine:
    return create_async_engine(
        "postgresql+psycopg://",
        async_creator=lambda: psycopg.AsyncConnection.connect(database),
    )


def _jobs(database: str) -> int:
    count: int = value(database, "select count(*) from pgqueue.jobs")
    return count


async def test_sqlalchemy_async_session_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None]
) -> None:
    engine = _async_engine(database)
    async with AsyncSession(engine) as session:
        await greet.using(connection=session).aenqueue("a")
        await session.rollback()
        assert _jobs(database) == 0
        await greet.using(connection=session).aenqueue("a")
        assert _jobs(database) == 0
        await session.commit()
    await engine.dispose()
    assert _jobs(database) == 1


async def test_sqlalchemy_async_connection_rollback_leaves_no_job_and_commit_leaves_it(
    database: str, greet: Task[None]
) -> None:
    engine = _async_engine(database)
    async with engine.connect() as connection:
        await greet.using(connection=connection).aenqueue("a")
        await connection.rollback()
        assert _jobs(database) == 0
        await greet.using(connection=connection).aenqueue("a")
        await connection.commit()
    await engine.dispose()
    assert _jobs(database) == 1

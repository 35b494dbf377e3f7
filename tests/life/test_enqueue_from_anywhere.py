"""From psql, SQLAlchemy, psycopg, a trigger: committed jobs run, rolled back ones never were."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pgqueue import PgQueue
from proving import rows, value

Enqueue = Callable[..., None]
"""Enqueues a job for somebody on a database, and commits or rolls back."""

CALL = "select pgqueue.enqueue('greet', jsonb_build_object('name', {name}))"


def by_psql(database: str, name: str, *, keep: bool) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("there is no psql here")
    ending = "commit" if keep else "rollback"
    script = f"begin; {CALL.format(name=repr(name))}; {ending};"
    done = subprocess.run(
        [psql, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", database, "-c", script],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "COMMIT" in done.stdout or not keep


def by_psycopg(database: str, name: str, *, keep: bool) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(CALL.format(name="%s::text"), [name])
        if not keep:
            connection.rollback()


def by_session(database: str, name: str, *, keep: bool) -> None:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database))
    with Session(engine) as session:
        session.execute(sa.text(CALL.format(name="cast(:name as text)")), {"name": name})
        session.commit() if keep else session.rollback()
    engine.dispose()


def by_task_and_session(database: str, name: str, *, keep: bool) -> None:
    app = PgQueue(database)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database))

    @app.task
    def greet(name: str) -> None: ...

    with Session(engine) as session:
        greet.using(connection=session).enqueue(name)
        session.commit() if keep else session.rollback()
    engine.dispose()
    app.close()


def by_trigger(database: str, name: str, *, keep: bool) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("""
            create table users (name text);
            create function greet_user() returns trigger language plpgsql as $$
            begin
              perform pgqueue.enqueue('greet', jsonb_build_object('name', new.name));
              return new;
            end $$;
            create trigger greet after insert on users for each row execute function greet_user();
        """)
        connection.commit()
        connection.execute("insert into users values (%s)", [name])
        if not keep:
            connection.rollback()


WAYS = [by_psql, by_psycopg, by_session, by_task_and_session, by_trigger]


@pytest.fixture
def greeted(pgq: PgQueue) -> list[str]:
    names: list[str] = []

    @pgq.task
    def greet(name: str) -> None:
        names.append(name)

    return names


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_is_committed_runs(
    pgq: PgQueue, database: str, greeted: list[str], way: Enqueue
) -> None:
    way(database, "Ada", keep=True)
    await pgq.worker(burst=True, scheduler=False).run()
    assert greeted == ["Ada"]
    assert rows(database, "select state, attempt from pgqueue.all_jobs") == [("completed", 1)]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_is_rolled_back_never_was(
    pgq: PgQueue, database: str, greeted: list[str], way: Enqueue
) -> None:
    way(database, "Ada", keep=False)
    await pgq.worker(burst=True, scheduler=False).run()
    assert greeted == []
    assert value(database, "select count(*) from pgqueue.all_jobs") == 0

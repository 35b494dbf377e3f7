"""The schema's name is the user's to choose, and nothing but a name."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue import ConfigError, PgQueue
from pgqueue.db import upgrade
from pgqueue.sql import rendered

BAD_NAMES = [
    "",
    " ",
    "a b",
    " pgqueue",
    "pgqueue ",
    "pgqueue\n",
    'a"b',
    '"pgqueue"',
    "a'b",
    "a;b",
    "x; drop schema public cascade",
    "x--",
    "x/**/",
    "a.b",
    "a%b",
    "a%(b)s",
    "a:b",
    "a\\b",
    "a\0b",
    "1abc",
    "-abc",
    "café",
    "пгк",
    "a\u0332",
    "x" * 31,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="schema name"):
        PgQueue("dbname=nowhere", schema=name)
    with pytest.raises(ConfigError, match="schema name"):
        rendered("select 1 from pgqueue.jobs", name)


@given(st.text())
def test_a_name_is_refused_or_stands_in_the_statement_as_it_is(name: str) -> None:
    try:
        text = rendered("select 1 from pgqueue.jobs", name)
    except ConfigError:
        return
    assert text == 'select 1 from "NAME".jobs'.replace("NAME", name)
    assert name.isascii()
    assert name.isidentifier()


def test_a_part_of_a_longer_name_is_left_alone() -> None:
    text = "select my_pgqueue.x, a.pgqueue.b, content_x.y from pgqueue.jobs"
    assert rendered(text, "other") == text.replace(" pgqueue.", ' "other".')


@pytest.mark.parametrize("schema", ["other", "Select", "_x", "x" * 30])
async def test_all_of_it_works_in_another_schema(schema: str, empty_database: str) -> None:
    pgq = PgQueue(empty_database, schema=schema)
    ran: list[int] = []

    @pgq.task
    def note(n: int) -> int:
        ran.append(n)
        return n

    upgrade.move(pgq.settings, pgq.conninfo())
    upgrade.check(pgq.settings, pgq.conninfo())
    job = note.enqueue(n=1)
    note.enqueue_many([{"n": 2}, {"n": 3}])
    pgq.put_schedule("often", cron="* * * * *", task=note, payload={"n": 4})
    with pgq.connection() as connection:
        back = "update pgqueue.schedules set next_run_at = next_run_at - interval '2 minutes'"
        connection.execute(rendered(back, schema))
    assert pgq.tick().jobs >= 1
    await pgq.worker(burst=True, scheduler=False).run()
    assert set(ran) == {1, 2, 3, 4}
    assert pgq.get_job(job.id).state == "completed"
    await pgq.pools.aclose()
    pgq.close()
    assert _schemas(empty_database) <= {schema, f"{schema}_content", "public"}


def test_two_schemas_in_one_database_know_nothing_of_each_other(
    empty_database: str, make_app: Callable[[str], PgQueue]
) -> None:
    one, two = make_app("one"), make_app("two")
    for app in (one, two):
        upgrade.move(app.settings, app.conninfo())
    one.tasks.get("note").enqueue()
    with psycopg.connect(empty_database) as connection:
        counts = connection.execute(
            "select (select count(*) from one.jobs), (select count(*) from two.jobs)"
        ).fetchone()
    assert counts == (1, 0)
    upgrade.move(one.settings, one.conninfo(), "base")
    two.tasks.get("note").enqueue()


@pytest.fixture
def make_app(empty_database: str) -> Callable[[str], PgQueue]:
    def make(schema: str) -> PgQueue:
        app = PgQueue(empty_database, schema=schema)
        app.task(name="note")(lambda: None)
        return app

    return make


def _schemas(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select nspname from pg_namespace "
            "where nspname !~ '^pg_' and nspname <> 'information_schema'"
        )
        return {name for (name,) in rows}

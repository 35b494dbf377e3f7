"""Stories near to a text: one answer, whether pgvector is there or not."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pgqueue.cli.commands import stories
from pgqueue.cli.main import app as command
from pipeline_rig import END, START, Rig, rss
from psycopg.conninfo import make_conninfo
from test_stages import add_samples
from typer.testing import CliRunner

from pgqueue import PgQueue
from pgqueue.db import upgrade
from pgqueue.errors import ConfigError
from pgqueue.pipeline.embed import choose, from_bytes, present
from pgqueue.pipeline.store import desk
from pgqueue.pipeline.stories import list_stories, search_stories
from pgqueue.pipeline.tasks import add_tasks
from pgqueue.pipeline.topics import add_topic
from pgqueue.pipeline.vectors import CANDIDATES, MOST_STORIES
from pgqueue.settings import normalised_url
from pgqueue.sql import load

WITHOUT = "alter table content.item_vectors rename to hidden"
WITH = "alter table content.hidden rename to item_vectors"


@pytest.fixture
def told(rig: Rig) -> Rig:
    """The sample feeds, run, on a server with pgvector."""
    if not rig.one("select content.use_pgvector()"):
        pytest.skip("this server has no pgvector")
    add_samples(rig)
    rig.run()
    return rig


def both(rig: Rig, text: str, n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The answers through pgvector and without it."""
    through = search_stories(rig.pgq, text, limit=n)
    rig.rows(WITHOUT)
    try:
        return through, search_stories(rig.pgq, text, limit=n)
    finally:
        rig.rows(WITH)


def without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != column} for row in rows]


def ways(rows: list[dict[str, Any]]) -> set[str]:
    return {row["searched_by"] for row in rows}


def test_a_story_is_found_by_words_of_its_reports(told: Rig) -> None:
    for story in list_stories(told.pgq):
        found = search_stories(told.pgq, story["title"], limit=1)
        assert [row["title"] for row in found] == [story["title"]]


def test_both_ways_find_the_same_stories_for_every_title_of_the_samples(told: Rig) -> None:
    for row in told.rows("select title from content.items"):
        through, exact = both(told, row["title"], 10)
        assert (ways(through), ways(exact)) == ({"pgvector"}, {"exact"})
        assert without(through, "searched_by") == without(exact, "searched_by")


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_both_ways_find_the_same_stories_for_any_words(told: Rig, data: st.DataObject) -> None:
    texts = [row["text"] for row in told.rows("select text from content.items")]
    words = sorted(set(" ".join(texts).split()))
    text = " ".join(data.draw(st.lists(st.sampled_from(words), min_size=3, max_size=30)))
    # Function words alone ("all all all") are refused: there is nothing to search for.
    assume(choose("hash-2048").embed([text]).any())
    n = data.draw(st.integers(1, 20))
    through, exact = both(told, text, n)
    assert without(through, "searched_by") == without(exact, "searched_by")
    assert [row["similarity"] for row in exact] == sorted(
        (row["similarity"] for row in exact), reverse=True
    )


def test_the_index_alone_finds_every_one_of_the_samples(told: Rig) -> None:
    sql = load("pgqueue.pipeline.sql", "pgqueue")
    items = told.rows("select item_id, vec from content.embeddings order by item_id")
    matrix = np.stack([from_bytes(item["vec"]) for item in items])
    (schema,) = told.rows(sql["pgvector_schema"])
    params = {"model": "hash-2048", "topic_ids": [told.topic_id], "n": 10}
    with desk(told.pgq) as at:
        at.rows("aim_pgvector", **schema, ef_search="400")
        # Few rows are sorted sooner than searched in an index: here the index is what is tried.
        at.connection.execute("set local enable_sort = off")
        for vector in matrix:
            given = {**params, "wanted": vector.tolist()}
            found = at.connection.execute(sql["nearest_2048"], given, prepare=False).fetchall()
            best = np.sort(matrix @ vector)[::-1][:10]
            similarities = sorted((from_bytes(vec) @ vector for _, vec in found), reverse=True)
            assert similarities == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("name", present())
def test_every_embedder_has_its_index_and_the_search_uses_it(told: Rig, name: str) -> None:
    embedder = choose(name)
    with desk(told.pgq) as at:
        (schema,) = at.rows("pgvector_schema")
        at.rows("aim_pgvector", **schema, ef_search="400")
        at.connection.execute("set local enable_sort = off")
        given = {
            "model": name,
            "topic_ids": [told.topic_id],
            "n": 10,
            "wanted": embedder.embed(["wind at sea"])[0].tolist(),
        }
        statement = f"explain {at.sql[f'nearest_{embedder.dim}']}"
        plan = at.connection.execute(statement.encode(), given, prepare=False).fetchall()
    assert f"item_vectors_{name.replace('-', '_')}" in str(plan)


def test_more_candidates_than_pgvector_may_look_at_are_never_asked_for() -> None:
    assert MOST_STORIES * CANDIDATES <= 1000


def test_where_candidates_tell_too_few_stories_every_vector_is_compared(told: Rig) -> None:
    # One story with more reports on the subject than pgvector is asked for, and one beside it.
    entries = [
        (f"Wind farm Aurora opens, report {n}", "The wind farm Aurora opens at sea.", START)
        for n in range(3 * CANDIDATES)
    ]
    told.feed("many.rss", rss(entries, "https://many.example"))
    told.run(END, END + timedelta(hours=1))
    text = "Wind farm Aurora opens at sea"
    through, exact = both(told, text, 2)
    assert without(through, "searched_by") == without(exact, "searched_by")
    assert ways(through) == {"exact"}


def test_vectors_of_before_pgvector_came_are_found_through_it(told: Rig) -> None:
    copies = "select item_id, model, topic_id, vec::text from content.item_vectors order by 1"
    before = told.rows(copies)
    told.rows("drop table content.item_vectors")
    exact = search_stories(told.pgq, "wind farms at sea")
    assert ways(exact) == {"exact"}
    assert told.one("select content.use_pgvector()") is True
    through = search_stories(told.pgq, "wind farms at sea")
    assert ways(through) == {"pgvector"}
    assert without(through, "searched_by") == without(exact, "searched_by")
    assert told.rows(copies) == before


def test_windows_and_searches_go_on_when_the_extension_is_dropped(told: Rig) -> None:
    told.rows("drop extension vector cascade")
    told.feed("late.rss", rss([("Tidal power off Orkney", "Tides give power.", START)]))
    told.run(END, END + timedelta(hours=1))
    (found,) = search_stories(told.pgq, "tidal power Orkney", limit=1)
    assert (found["title"], found["searched_by"]) == ("Tidal power off Orkney", "exact")
    assert told.one("select content.use_pgvector()") is True
    assert ways(search_stories(told.pgq, "tidal power Orkney", limit=1)) == {"pgvector"}


def test_an_item_takes_its_vectors_with_it(told: Rig) -> None:
    told.rows("delete from content.items")
    assert told.one("select count(*) from content.item_vectors") == 0


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_database_reads_the_very_numbers_that_were_stored(
    rig: Rig, numbers: list[float]
) -> None:
    stored = np.array(numbers, "<f4")
    # Read as the shortest text that is this number among those of 32 bits.
    read = np.array(rig.one("select content.floats(%s)", [stored.tobytes()]), "<f4")
    assert read.tolist() == stored.tolist()


def test_only_the_topic_that_was_asked_for_is_searched(told: Rig) -> None:
    assert search_stories(told.pgq, "wind", topic="Topic")
    add_topic(told.pgq, "Empty")
    assert search_stories(told.pgq, "wind", topic="Empty") == []
    assert list_stories(told.pgq, topic="Empty") == []


@pytest.mark.parametrize("text", ["", " ", "…", "!?"])
def test_a_text_without_a_word_is_refused(rig: Rig, text: str) -> None:
    with pytest.raises(ConfigError, match="give some words"):
        search_stories(rig.pgq, text)


def test_the_command_says_which_stories_are_near_and_how_they_were_found(
    told: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The built-in app reads the environment when it is first imported, maybe by another test.
    monkeypatch.setattr(stories, "pipeline_app", lambda: told.pgq)
    words = ["stories", "search", "wind farms at sea", "--topic", "Topic", "-n", "3"]
    shown = CliRunner().invoke(command, words)
    assert shown.exit_code == 0, shown.output
    assert "searched by pgvector" in shown.output
    rows = json.loads(CliRunner().invoke(command, [*words, "--json"]).output)
    assert [row["searched_by"] for row in rows] == ["pgvector"] * 3
    assert rows[0]["title"] in shown.output
    listed = json.loads(CliRunner().invoke(command, ["stories", "list", "--json"]).output)
    assert len(listed) == 17
    assert set(rows[0]) - set(listed[0]) == {"similarity", "searched_by"}


def test_who_may_not_create_extensions_does_without_until_an_administrator_helps(
    empty_database: str, tmp_path: Path
) -> None:
    role = f"plain_{secrets.token_hex(6)}"
    with psycopg.connect(empty_database, autocommit=True) as administrator:
        administrator.execute(f"create role {role}".encode())
        grant = f"grant create on database {administrator.info.dbname} to {role}"
        administrator.execute(grant.encode())
        plain = make_conninfo(normalised_url(empty_database), options=f"-c role={role}")
        app = PgQueue(plain)
        add_tasks(app)
        upgrade.move(app.settings, app.conninfo())
        rig = Rig(app, tmp_path)
        add_samples(rig)
        rig.run()
        assert ways(search_stories(app, "wind", limit=1)) == {"exact"}
        (helped,) = administrator.execute("select content.use_pgvector()").fetchone() or ()
        rig.feed("late.rss", rss([("Tidal power off Orkney", "Tides give power.", START)]))
        rig.run(END, END + timedelta(hours=1))
        (found,) = search_stories(app, "tidal power Orkney", limit=1)
        assert found["title"] == "Tidal power off Orkney"
        assert found["searched_by"] == ("pgvector" if helped else "exact")
        app.close()
        administrator.execute(f"drop owned by {role}; drop role {role}".encode())


def test_it_works_in_another_schema_too(empty_database: str, tmp_path: Path) -> None:
    app = PgQueue(empty_database, schema="other")
    add_tasks(app)
    upgrade.move(app.settings, app.conninfo())
    rig = Rig(app, tmp_path)
    add_samples(rig)
    rig.run()
    found = search_stories(app, "wind farms at sea", limit=3)
    assert len(found) == 3
    assert len(ways(found)) == 1
    app.close()

"""The database can be built, torn down and built again, and it is the one that was reviewed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg

from pgqueue.db import upgrade
from pgqueue.db.version import KNOWN_REVISIONS
from pgqueue.settings import described_target, normalised_url, read_settings
from project.conftest import Dump, Move
from project.dumping import SNAPSHOT
from project.places import PGQ, ROOT

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def test_a_migrated_database_is_the_reviewed_one(move: Move, dump: Dump) -> None:
    move()
    assert dump() == SNAPSHOT.read_text(encoding="utf-8"), "reviewed a change? make snapshot"


def test_the_tables_in_code_are_those_in_the_database(database: str) -> None:
    url = normalised_url(database)
    upgrade.check(read_settings(database_url=url), url)  # raises on a difference


def test_the_code_knows_every_revision_that_it_brings() -> None:
    assert list(KNOWN_REVISIONS) == _revisions()


def test_down_leaves_nothing_but_the_revision_table(move: Move, empty_database: str) -> None:
    move()
    assert move("base") is None
    assert _objects(empty_database) == ["alembic_version", "alembic_version_pkc"]


def test_up_down_up_gives_the_same_schema(move: Move, dump: Dump) -> None:
    move()
    first = dump()
    move("base")
    move()
    assert dump() == first


def test_each_revision_can_be_left_and_reached_again(move: Move, dump: Dump) -> None:
    revisions = _revisions()
    for lower, upper in zip(["base", *revisions], revisions, strict=False):
        move(upper)
        before = dump()
        move(lower)
        move(upper)
        assert dump() == before, f"{upper} down to {lower} and up again"


def test_migrating_twice_changes_nothing(move: Move, dump: Dump) -> None:
    revision = move()
    first = dump()
    assert move() == revision
    assert dump() == first


def test_the_sql_for_a_database_administrator_is_complete_and_needs_no_database(
    empty_database: str, dump: Dump, psql: Path, tmp_path: Path
) -> None:
    private = tmp_path / "never-started"
    script = tmp_path / "pgqueue.sql"
    answer = subprocess.run(
        [PGQ, "migrate", "--sql"],
        env={**os.environ, "PGQUEUE_DATABASE_URL": NOWHERE, "PGQUEUE_EMBEDDED_DIR": str(private)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    script.write_text(answer.stdout, encoding="utf-8")
    subprocess.run(
        [
            psql,
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--file={script}",
            empty_database,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert dump() == SNAPSHOT.read_text(encoding="utf-8")
    assert not private.exists()
    assert _revision(empty_database) == _revisions()[-1]


def test_without_a_url_the_sql_starts_no_private_postgres(tmp_path: Path) -> None:
    private = tmp_path / "never-started"
    hidden = ("PGQUEUE_DATABASE_URL", "DATABASE_URL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run(
        [PGQ, "migrate", "--sql"],
        env={**environment, "PGQUEUE_EMBEDDED_DIR": str(private)},
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert not private.exists()


def test_eight_deploys_that_migrate_at_once_all_succeed_and_one_works(
    empty_database: str, dump: Dump, tmp_path: Path
) -> None:
    environment = {**os.environ, "PGQUEUE_DATABASE_URL": empty_database}
    deploys = [
        subprocess.Popen(
            [PGQ, "migrate"],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    said = [deploy.communicate(timeout=100) for deploy in deploys]
    assert [deploy.returncode for deploy in deploys] == [0] * 8, said
    place = f"schema pgqueue of {described_target(empty_database)}"
    assert {out for out, _ in said} == {f"{place} is at revision {_revisions()[-1]}\n"}
    assert dump() == SNAPSHOT.read_text(encoding="utf-8")
    with psycopg.connect(empty_database) as connection:
        # A migration that had run twice would have inserted it twice or failed.
        assert connection.execute("select count(*) from pgqueue.schema_info").fetchone() == (1,)


def _objects(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select relname from pg_class join pg_namespace n on n.oid = relnamespace "
            "where nspname in ('pgqueue', 'content') "
            "union all select proname from pg_proc join pg_namespace n on n.oid = pronamespace "
            "where nspname in ('pgqueue', 'content') order by 1"
        )
        return [name for (name,) in rows]


def _revision(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute("select version_num from pgqueue.alembic_version").fetchone()
        return row and row[0]


def _revisions() -> list[str]:
    """All revisions, oldest first."""
    return sorted(
        file.stem.split("_")[0] for file in (ROOT / "migrations/versions").glob("[0-9]*.py")
    )

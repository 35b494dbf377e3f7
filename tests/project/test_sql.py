"""Every statement fits the schema, and reads like the others."""

from __future__ import annotations

import re
from importlib.util import find_spec

import psycopg
import pytest

from pgqueue.sql import load

PACKAGES = [name for name in ("pgqueue.sql", "pgqueue.pipeline.sql") if find_spec(name)]
STATEMENTS = {
    f"{package}:{name}": text
    for package in PACKAGES
    for name, text in load(package, "pgqueue").items()
}
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_NOT_CODE = re.compile(r"--.*|'(?:[^']|'')*'|\"[^\"]*\"|%\(\w+\)s")


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_fits_the_migrated_schema(name: str, session_database: str) -> None:
    with psycopg.connect(session_database, autocommit=True) as connection:
        _skip_without_pgvector(connection, STATEMENTS[name])
        # The server's own parser and planner judge it; nothing runs.
        prepared = connection.pgconn.prepare(b"one", _numbered(STATEMENTS[name]).encode())
        assert prepared.status == psycopg.pq.ExecStatus.COMMAND_OK, prepared.error_message.decode()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_written_in_lower_case(name: str) -> None:
    code = _NOT_CODE.sub("", STATEMENTS[name])
    assert re.findall(r"\b\w*[A-Z]\w*\b", code) == []
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name.partition(":")[2])


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_names_the_schema_of_each_table(name: str) -> None:
    code = _NOT_CODE.sub("", STATEMENTS[name].replace('"pgqueue".', "pgqueue."))
    bare = re.findall(
        r"\b(?:from|into|update|join)\s+(jobs|workers|schedules|windows|queues)\b", code
    )
    assert bare == []


def _skip_without_pgvector(connection: psycopg.Connection, statement: str) -> None:
    """The one table that is not everywhere; what only asks for it has its name in quotes."""
    if not re.search(r"\.item_vectors\b(?!')", statement):
        return
    there = connection.execute("select to_regclass('content.item_vectors')").fetchone()
    if there == (None,):
        pytest.skip("this server has no pgvector: the table of this statement is not there")


def _numbered(text: str) -> str:
    """The statement as the server sees it: `$1` for the first name, `$2` for the next."""
    numbers: dict[str, int] = {}
    numbered = _PLACEHOLDER.sub(
        lambda match: f"${numbers.setdefault(match[1], len(numbers) + 1)}", text
    )
    return numbered.replace("%%", "%")

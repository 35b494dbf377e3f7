"""A worker that cannot start says why in one line, and has left no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgqueue.db.version import KNOWN_REVISIONS

Run = Callable[..., Any]
NO_QUEUE = "is not valid: 1 to 100 letters, digits and the signs _ . : -"
NOT_MIGRATED = "the database has no pgqueue tables in schema 'pgqueue': run `pgq migrate`"
TOO_NEW = "which this pgqueue does not know: upgrade the pgqueue package"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--queue", "a b"), f"queue name 'a b' {NO_QUEUE}"),
        (("--log-level", "loud"), "log level 'loud' is not valid: debug, info, warning, error"),
    ],
)
def test_a_worker_with_wrong_options_does_not_start(
    arguments: tuple[str, ...],
    line: str,
    rows: Callable[[], int],
    app: str,
    pgq_process: Run,
) -> None:
    said = pgq_process("worker", "--burst", *arguments)
    assert (said.code, said.out, said.err) == (2, "", f"pgq: {line}\n")
    assert rows() == 0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("drop schema pgqueue cascade", NOT_MIGRATED),
        (
            "update pgqueue.alembic_version set version_num = '9999'",
            f"schema 'pgqueue' is at revision 9999, {TOO_NEW}",
        ),
        (
            "update pgqueue.schema_info set version = 99, min_compatible = 99",
            f"schema 'pgqueue' is at version 99 (revision {KNOWN_REVISIONS[-1]}), {TOO_NEW}",
        ),
    ],
)
def test_a_worker_does_not_start_on_a_database_that_it_does_not_know(
    change: str, line: str, rows: Callable[[], int], app: str, pgq_process: Run, database: str
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(change)
    said = pgq_process("worker", "--burst")
    assert (said.code, said.out, said.err) == (1, "", f"pgq: {line}\n")


def test_an_unreachable_database_ends_the_real_command_with_one_line(
    app: str, pgq_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x")
    said = pgq_process("worker")
    line = "pgq: cannot connect to database 'x' at 127.0.0.1:1: Connection refused\n"
    assert (said.code, said.out, said.err) == (1, "", line)

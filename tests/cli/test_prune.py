"""pgq prune: retention at an operator's wish."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cli.conftest import Said
from proving import Clock, value
from proving import rows as query

Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def old_days(database: str, app: str, rows: Callable[[], int]) -> Clock:
    """It is 2030: all days that the migration made are old."""
    assert rows() == 0
    return Clock(database)


def test_a_dry_run_shows_what_would_go_and_changes_nothing(pgq_command: Run, database: str) -> None:
    before = value(database, "select count(*) from pg_inherits")
    said = pgq_command("prune", "--dry-run")
    assert said.code == 0
    assert said.out.startswith("would go: finished_jobs_completed_")
    assert value(database, "select count(*) from pg_inherits") == before


def test_it_drops_what_is_old_and_makes_days_ahead(pgq_command: Run, database: str) -> None:
    planned = json.loads(pgq_command("prune", "--dry-run", "--json").out)
    done = json.loads(pgq_command("prune", "--json").out)
    assert [row["partition_name"] for row in done] == [row["partition_name"] for row in planned]
    assert {row["became"] for row in done} == {"dropped"}
    days = "select count(*) from pg_class where relname like 'finished_jobs_completed_20300115'"
    assert value(database, days) == 1
    assert pgq_command("prune").out == "nothing is old enough to go\n"


def test_while_a_worker_is_at_it_the_operator_is_told(pgq_command: Run, database: str) -> None:
    query(
        database,
        "update pgqueue.chores set taken_by = 7, "
        "taken_until = pgqueue.clock() + interval '5 seconds' where name = 'retention'",
    )
    said = pgq_command("prune")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "pgq: the chore 'retention' is being done by somebody else: try again later\n"
    )


def test_a_pass_is_written_down_with_the_chore(pgq_command: Run, database: str) -> None:
    assert pgq_command("prune").code == 0
    facts = query(
        database,
        "select taken_by, last_run_at = pgqueue.clock(), last_error from pgqueue.chores "
        "where name = 'retention'",
    )
    assert facts == [(None, True, None)]

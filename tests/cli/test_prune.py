"""pgq prune: retention at an operator's wish."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from proving import Clock, value
from proving import rows as query

Run = Callable[..., Any]

AUDIT = "select source, action, target, details from pgqueue.audit_log order by id"


@pytest.fixture(autouse=True)
def old_days(database: str, app: str, rows: Callable[[], int]) -> Clock:
    """It is 2030: all days that the migration made are old."""
    assert rows() == 0
    return Clock(database)


def test_a_dry_run_shows_what_would_go_and_changes_nothing(pgq_command: Run, database: str) -> None:
    before = value(database, "select count(*) from pg_inherits")
    said = pgq_command("prune", "--dry-run")
    assert said.code == 0
    kept, failed, windows, first, *_ = said.out.splitlines()
    assert kept == "kept: completed jobs for 7 days"
    assert failed == "kept: failed and cancelled jobs for 30 days"
    assert windows == "kept: windows of schedules for 400 days"
    assert first.startswith("would go: finished_jobs_completed_")
    assert value(database, "select count(*) from pg_inherits") == before


def test_it_drops_what_is_old_and_makes_days_ahead(pgq_command: Run, database: str) -> None:
    planned = json.loads(pgq_command("prune", "--dry-run", "--json").out)
    done = json.loads(pgq_command("prune", "--json").out)["partitions"]
    assert [row["partition_name"] for row in done] == [
        row["partition_name"] for row in planned["partitions"]
    ]
    assert {row["became"] for row in done} == {"dropped"}
    assert planned["retention"][0] == {
        "state_group": "completed",
        "keep": 7 * 86_400.0,
        "keep_count": None,
    }
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


def test_what_an_operator_drops_is_written_down(pgq_command: Run, database: str) -> None:
    done = json.loads(pgq_command("prune", "--json").out)["partitions"]
    assert pgq_command("prune").code == 0
    assert query(database, AUDIT) == [
        (
            "cli",
            "prune",
            "finished jobs",
            {"dropped": [row["partition_name"] for row in done], "postponed": []},
        )
    ]


def test_what_is_kept_is_set_and_written_down(pgq_command: Run, database: str) -> None:
    said = pgq_command("prune", "--keep", "completed=3d", "--keep-count", "completed=1000000")
    assert said.out.splitlines() == [
        "kept: completed jobs for 3 days, or until younger days hold 1,000,000",
        "kept: failed and cancelled jobs for 30 days",
        "kept: windows of schedules for 400 days",
    ]
    pgq_command("prune", "--keep", "completed=3d")  # no change
    pgq_command("prune", "--keep", "failed=forever")
    pgq_command("prune", "--keep", "failed=36h", "--keep-count", "completed=any")

    assert query(database, "select * from pgqueue.retention order by state_group::text") == [
        ("completed", timedelta(days=3), None),
        ("failed", timedelta(hours=36), None),
        ("windows", timedelta(days=400), None),
    ]
    changes = [(target, details) for _, action, target, details in query(database, AUDIT)]
    assert changes == [
        (
            "completed jobs",
            {
                "keep": "3 days",
                "keep_count": 1_000_000,
                "before": {"keep": "7 days", "keep_count": None},
            },
        ),
        (
            "failed jobs",
            {"keep": None, "keep_count": None, "before": {"keep": "30 days", "keep_count": None}},
        ),
        ("failed jobs", {"keep": "1 day 12:00:00", "keep_count": None, "before": None}),
        (
            "completed jobs",
            {
                "keep": "3 days",
                "keep_count": None,
                "before": {"keep": "3 days", "keep_count": 1_000_000},
            },
        ),
    ]


def test_a_dry_run_shows_what_another_policy_would_drop(pgq_command: Run, database: str) -> None:
    said = pgq_command("prune", "--dry-run", "--keep", "completed=forever", "--json")
    gone = [row["partition_name"] for row in json.loads(said.out)["partitions"]]
    assert gone
    assert all("_failed_" in name for name in gone)
    assert value(database, "select count(*) from pgqueue.retention") == 3
    assert query(database, AUDIT) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep", "7d"), "--keep '7d' is not valid: say which and what, completed=7d"),
        (("--keep", "all=7d"), "state group 'all' is not valid: completed, failed"),
        (("--keep", "completed=soon"), "--keep 'completed=soon' is not valid: a time such as 12h"),
        (
            ("--keep", "completed=30m"),
            "keep 0:30:00 is not valid: 1 hour or more, 100 years at most",
        ),
        (("--keep-count", "failed=-1"), "--keep-count 'failed=-1' is not valid: a whole number"),
        (
            ("--keep", "failed=forever", "--keep-count", "failed=5"),
            "failed jobs are kept for ever: give keep, too, or no keep_count",
        ),
    ],
)
def test_a_policy_that_is_not_valid_is_refused(
    pgq_command: Run, database: str, options: tuple[str, ...], message: str
) -> None:
    said = pgq_command("prune", *options)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert query(database, AUDIT) == []

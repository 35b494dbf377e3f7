"""`pgq schedule` and `pgq window`, as a person and as a machine reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pgqueue.cli.commands.schedule import sparkline
from pgqueue.cli.main import app
from typer.testing import CliRunner

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.events import SchedulesUndeclared
from pgqueue.schedule.store import put_declared
from proving import listening, rows

APP = """
from datetime import datetime
from pgqueue import PgQueue
pgq = PgQueue()

@pgq.task
def report(team: str, window_start: datetime, window_end: datetime) -> None: ...
"""
ADD = (
    "schedule", "add", "r", "--cron", "0 6,14,22 * * *", "--timezone", "Europe/Bratislava",
    "--task", "report", "--payload", '{"team": "a"}',
)  # fmt: skip

Asked = Callable[..., Any]


@pytest.fixture
def asked(database: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What a command answers with --json; it must succeed."""
    (tmp_path / "schedules_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "schedules_app", raising=False)
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)
    monkeypatch.setenv("PGQUEUE_APP", "schedules_app:pgq")

    def ask(*arguments: str) -> Any:
        answer = CliRunner().invoke(app, [*arguments, "--json"])
        assert answer.exit_code == 0, (answer.output, answer.exception)
        return json.loads(answer.stdout)

    ask(*ADD)
    return ask


def test_next_shows_local_time_and_utc_over_a_change_of_the_clocks(asked: Asked) -> None:
    fires = asked("schedule", "next", "r", "-n", "4", "--after", "2026-10-24T12:00:00+00:00")
    assert fires == [
        {"utc": "2026-10-24T20:00:00Z", "local": "2026-10-24T22:00:00+02:00"},
        {"utc": "2026-10-25T05:00:00Z", "local": "2026-10-25T06:00:00+01:00"},
        {"utc": "2026-10-25T13:00:00Z", "local": "2026-10-25T14:00:00+01:00"},
        {"utc": "2026-10-25T21:00:00Z", "local": "2026-10-25T22:00:00+01:00"},
    ]


def test_next_says_that_a_paused_schedule_does_not_fire(asked: Asked) -> None:
    shown = CliRunner().invoke(app, ["schedule", "next", "r", "-n", "1"]).stdout
    assert shown.startswith("Europe/Bratislava\n")
    asked("schedule", "pause", "r")
    shown = CliRunner().invoke(app, ["schedule", "next", "r", "-n", "1"]).stdout
    assert shown.startswith("Europe/Bratislava (paused: it does not fire until it is resumed)\n")


def test_what_is_asked_for_by_hand_is_done_and_stands_in_the_audit_log(
    asked: Asked, database: str
) -> None:
    paused = asked("schedule", "pause", "r", "--reason", "down")
    assert paused == {"name": "r", "enabled": False, "changed": True}
    assert asked("schedule", "pause", "r")["changed"] is False
    assert asked("schedule", "resume", "r")["changed"] is True
    assert asked("schedule", "edit", "r", "--overlap", "skip")["name"] == "r"
    (row,) = asked("schedule", "list")
    assert (row["overlap"], row["cron"], row["enabled"]) == ("skip", "0 6,14,22 * * *", True)
    job = asked("schedule", "run", "r")["job_id"]
    (window,) = asked("window", "list", "--schedule", "r")
    assert (window["job_id"], window["mode"], window["state"]) == (job, "manual", "queued")
    asked("jobs", "cancel", str(job))
    again = asked("window", "rerun", str(window["id"]))
    (window,) = asked("schedule", "history", "r")
    assert (window["run"], window["job_id"]) == (2, again["job_id"])
    assert asked("schedule", "remove", "r") == {"name": "r", "removed": True}
    assert asked("schedule", "list") == []
    actions = rows(
        database,
        "select action from pgqueue.audit_log where source = 'cli' and target = 'schedule r' "
        "order by id",
    )
    assert [action for (action,) in actions] == [
        "add", "pause", "resume", "change", "run", "rerun", "remove",
    ]  # fmt: skip


def test_an_edit_that_changes_nothing_says_what_it_could(pgq_command: Asked) -> None:
    said = pgq_command("schedule", "edit", "r")
    assert said.code == 2
    assert said.err == ("pgq: nothing to change: give options such as --cron, or --clear ends\n")


def test_whose_task_is_unknown_because_no_app_was_named_is_told_so(
    pgq_command: Asked, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)
    said = pgq_command("schedule", "add", "s", "--cron", "@daily", "--task", "resize")
    assert said.code == 2
    assert said.err.endswith("name your own app with --app MODULE:ATTR or PGQUEUE_APP\n")


def test_a_backfill_is_listed_first_then_done_and_can_be_stopped(asked: Asked) -> None:
    span = ("--from", "2026-01-01", "--to", "2026-01-03")
    plan = asked("schedule", "backfill", "r", *span, "--dry-run")
    assert plan["count"] == 5
    assert [one["window_start"] for one in plan["windows"]] == [
        "2026-01-01T05:00:00+00:00",
        "2026-01-01T13:00:00+00:00",
        "2026-01-01T21:00:00+00:00",
        "2026-01-02T05:00:00+00:00",
        "2026-01-02T13:00:00+00:00",
    ]
    number = asked("schedule", "backfill", "r", *span)["id"]
    asked("schedule", "tick")
    (progress,) = asked("schedule", "backfills", "r")
    assert (progress["id"], progress["windows"], progress["open"]) == (number, 5, 1)
    (progress,) = asked("schedule", "backfills", "--cancel", str(number))
    assert (progress["state"], progress["waiting"]) == ("cancelled", 0)


def test_a_dry_run_shows_the_first_windows_and_counts_them_all(asked: Asked) -> None:
    span = ("--from", "2025-01-01", "--to", "2026-01-01")
    plan = asked("schedule", "backfill", "r", *span, "--dry-run", "-n", "2")
    assert (plan["count"], len(plan["windows"])) == (1094, 2)
    shown = CliRunner().invoke(app, ["schedule", "backfill", "r", *span, "--dry-run"])
    assert "1094 windows would run; -n shows more than the first 100" in shown.stdout
    assert len(shown.stdout.splitlines()) < 110
    assert asked("schedule", "backfills") == []


def test_an_option_is_taken_back_by_its_name(asked: Asked) -> None:
    given = ("--ends", "2999-01-01", "--tenant", "acme", "--max-age", "60", "--tag", "x")
    asked("schedule", "edit", "r", *given)
    (row,) = asked("schedule", "list")
    assert (row["ends_at"], row["tenant"]) == ("2998-12-31T23:00:00+00:00", "acme")
    cleared = ("--clear", "ends", "--clear", "tenant", "--clear", "max-age", "--clear", "tag")
    asked("schedule", "edit", "r", *cleared, "--delay", "5")
    (row,) = asked("schedule", "list")
    names = ("ends_at", "tenant", "catch_up_max_age", "tags", "delay", "payload")
    assert [row[name] for name in names] == [None, None, None, [], 5.0, {"team": "a"}]


def test_the_doctor_says_what_to_do(asked: Asked, database: str) -> None:
    rows(database, "update pgqueue.schedules set cron = 'x', next_run_at = now()")
    asked("schedule", "tick")
    answer = CliRunner().invoke(app, ["doctor"])
    assert answer.exit_code == 1
    assert "ERROR    schedules: schedule 'r' could not be ticked 1 times" in answer.stdout
    assert "pgq schedule list shows the error" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("schedule", "pause", "nope"), "schedule 'nope' does not exist"),
        (("schedule", "next", "r", "--after", "noon"), "--after 'noon' is not a time"),
        (("schedule", "edit", "r", "--overlap", "maybe"), "overlap 'maybe' is not valid"),
        (("schedule", "edit", "r", "--after", "r"), "cannot run after itself"),
        (("schedule", "edit", "r", "--clear", "cron"), "--clear cron is not valid: timezone"),
        (
            ("schedule", "edit", "r", "--delay", "1", "--clear", "delay"),
            "--delay and --clear delay exclude each other",
        ),
        (("schedule", "backfills", "--cancel", "9"), "backfill 9 does not exist"),
        (("schedule", "backfills", "nope"), "schedule 'nope' does not exist"),
        (("window", "list", "--state", "done"), "state 'done' is not valid"),
        (("window", "rerun", "4711"), "window 4711 does not exist: `pgq window list`"),
        (
            ("schedule", "backfill", "r", "--from", "2026-01-02", "--to", "2026-01-01"),
            "ends after it starts",
        ),
        (
            ("schedule", "backfill", "r", "--from", "2026-01-02", "--to", "2999-01-01"),
            "ends now at the latest",
        ),
    ],
)
def test_a_mistake_is_said_plainly(asked: Asked, arguments: tuple[str, ...], says: str) -> None:
    answer = CliRunner().invoke(app, list(arguments))
    assert says in str(answer.exception), answer.output


def test_the_line_of_bars_shows_durations_and_failures_oldest_first() -> None:
    def window(state: str, seconds: float | None) -> dict[str, Any]:
        return {"state": state, "duration": None if seconds is None else timedelta(seconds=seconds)}

    newest_first = [
        window("running", 1.0),
        window("skipped", None),
        window("failed", 4.0),
        window("completed", 8.0),
        window("completed", 0.1),
    ]
    assert sparkline(newest_first) == "▁█✗·▂"


def test_what_code_declared_and_declares_no_more_is_told_of(database: str) -> None:
    pgq = PgQueue(database)

    @pgq.task
    def fire() -> None: ...

    pgq.schedule("b", cron="@daily", task=fire, after="a")
    pgq.schedule("a", cron="@daily", task=fire)
    declared = list(pgq.schedules.values())
    with connect(database) as connection, listening() as recorder:
        run(connection, put_declared(pgq.sql, declared, ["fire"]))
        assert recorder.of(SchedulesUndeclared) == []
        run(connection, put_declared(pgq.sql, [declared[1]], ["fire"]))
        assert recorder.of(SchedulesUndeclared) == [SchedulesUndeclared(("b",))]
    assert [row["name"] for row in pgq.list_schedules()] == ["a", "b"]
    assert pgq.list_schedules()[1]["after"] == "a"
    pgq.close()

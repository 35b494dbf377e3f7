"""Whatever an operator gets wrong: one clear message, the right exit code, and nothing is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from endings import end

Run = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("app", "rows")

NO_TIME = "is not a time: use a span such as 24h or 7d, or ISO 8601 with zone"
STATES = "queued, blocked, waiting, running, completed, failed, cancelled"
NO_QUEUE = "is not valid: 1 to 100 letters, digits and the signs _ . : -"

WRONG = {
    "an id that is no number": (("jobs", "show", "seven"), 2, "valid integer"),
    "an id of nobody": (("jobs", "show", "0"), 2, "greater than or equal to 1"),
    "a negative id": (("jobs", "why", "--", "-1"), 2, "greater than or equal to 1"),
    "an id beyond all ids": (("jobs", "cancel", str(2**63)), 2, "less than or equal to"),
    "one bad id among good ones": (("jobs", "delete", "1", "x"), 2, "valid integer"),
    "no id to cancel": (("jobs", "cancel"), 2, "Missing argument"),
    "no id to delete": (("jobs", "delete"), 2, "Missing argument"),
    "nothing to retry by": (("jobs", "retry"), 2, "say which jobs: ids, or a filter"),
    "ids and a filter": (("jobs", "retry", "1", "--task", "add"), 2, "say which jobs"),
    "a dry run of ids": (("jobs", "retry", "1", "--dry-run"), 2, "go with a filter"),
    "an empty filter": (("jobs", "retry", "--dry-run"), 2, "say which jobs"),
    "retry of running ones": (
        ("jobs", "retry", "--state", "running"),
        2,
        "running jobs are not retried by filter, only failed and cancelled ones",
    ),
    "a state that is none": (
        ("jobs", "list", "--state", "done"),
        2,
        f"state 'done' is not valid: {STATES}",
    ),
    "a status that is none": (
        ("jobs", "list", "--status", "late"),
        2,
        f"status 'late' is not valid: {STATES}, scheduled, retrying",
    ),
    "a time that is none": (("jobs", "list", "--since", "yesterday"), 2, NO_TIME),
    "a time without zone": (("jobs", "list", "--since", "2030-01-01"), 2, NO_TIME),
    "a span beyond all time": (("jobs", "list", "--since", "999999w"), 2, NO_TIME),
    "an end that is none": (("jobs", "retry", "--until", "x"), 2, NO_TIME),
    "a limit of nothing": (("jobs", "list", "--limit", "0"), 2, "greater than or equal to 1"),
    "a workflow that is no number": (
        ("jobs", "list", "--workflow", "main"),
        2,
        "valid integer",
    ),
    "a workflow of nobody": (("jobs", "list", "--workflow", "0"), 2, "greater than or equal to 1"),
    "a workflow beyond all": (("jobs", "list", "--workflow", str(2**63)), 2, "less than or equal"),
    "a page from nowhere": (("jobs", "list", "--before", "x"), 2, "valid integer"),
    "a job that does not exist": (("jobs", "show", "4711"), 1, "job 4711 does not exist"),
    "a replay of nothing": (("jobs", "replay", "4711"), 1, "job 4711 does not exist"),
    "a replay of a live job": (("jobs", "replay", "2"), 1, "job 2 is queued: only finished jobs"),
    "a payload that is not JSON": (
        ("jobs", "replay", "1", "--payload", "{a: 1}"),
        2,
        "--payload is not JSON: Expecting property name",
    ),
    "a payload that is a list": (
        ("jobs", "replay", "1", "--merge", "[1]"),
        2,
        "--merge must be a JSON object",
    ),
    "a payload that does not fit": (
        ("jobs", "replay", "1", "--merge", '{"a": "x"}'),
        2,
        "payload of task 'add' is not valid: a: Input should be a valid integer",
    ),
    "one payload for many": (
        ("jobs", "replay", "--task", "add", "--payload", '{"a": 1}'),
        2,
        "--payload goes with an id; use --merge for many jobs",
    ),
    "nothing to replay by": (("jobs", "replay"), 2, "say which jobs"),
    "a replay of queued ones": (
        ("jobs", "replay", "--state", "queued"),
        2,
        "queued jobs are not replayed by filter, only completed and failed and cancelled ones",
    ),
    "a payload too many": (
        ("jobs", "replay", "1", "--payload", '{"a": 1}', "--merge", '{"a": 1}'),
        2,
        "payload and merge exclude each other",
    ),
    "a queue with a space": (("queues", "pause", "e mail"), 2, f"queue name 'e mail' {NO_QUEUE}"),
    "a queue without a name": (("queues", "resume", ""), 2, f"queue name '' {NO_QUEUE}"),
    "a reason of a book's length": (
        ("queues", "pause", "email", "--reason", "x" * 1001),
        2,
        "the reason is not valid: text of at most 1000 characters",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_told_and_nothing_is_done(pgq_command: Run, database: str, wrong: str) -> None:
    arguments, code, message = WRONG[wrong]
    assert pgq_command("enqueue", "add", '{"a": 1}').code == 0
    assert pgq_command("enqueue", "add", '{"a": 1}').code == 0
    end(database, 1)

    said = pgq_command(*arguments)

    assert said.code == code, said.err
    assert message in " ".join(said.err.replace("│", " ").split())
    assert said.out == ""
    assert "Traceback" not in said.err
    with psycopg.connect(database) as connection:
        done = connection.execute(
            "select (select count(*) from pgqueue.audit_log), (select count(*) from pgqueue.jobs), "
            "(select count(*) from pgqueue.finished_jobs)"
        ).fetchone()
    assert done == (0, 1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "list"),
        ("jobs", "show", "1"),
        ("jobs", "why", "1"),
        ("jobs", "retry", "1"),
        ("jobs", "retry", "--state", "failed", "--dry-run"),
        ("jobs", "replay", "1"),
        ("jobs", "cancel", "1"),
        ("jobs", "delete", "1"),
        ("queues", "list"),
        ("queues", "pause", "email"),
        ("queues", "resume", "email"),
        ("stats",),
    ],
)
def test_a_database_without_tables_is_named_with_the_next_step(
    pgq_command: Run,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", empty_database)

    said = pgq_command(*arguments)

    assert (said.code, said.out) == (1, "")
    assert said.err.strip().endswith("run `pgq migrate`")

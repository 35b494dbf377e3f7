"""pgq jobs, queues, tasks, stats: what people and machines are told, and what is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from endings import end, run_on, worker
from pgqueue.engine.operate import this_user

Run = Callable[..., Any]
"""Takes the arguments of `pgq`; returns its exit code, stdout and stderr (conftest.Said)."""

pytestmark = pytest.mark.usefixtures("app", "rows")


@pytest.fixture
def add(pgq_command: Run) -> Callable[..., int]:
    """Enqueues a job of the task `add` by the command; returns its id."""

    def enqueue(*options: str) -> int:
        said = pgq_command("enqueue", "add", '{"a": 1}', *options, "--json")
        assert said.code == 0, said.err
        return int(json.loads(said.out)["id"])

    return enqueue


@pytest.fixture
def document(pgq_command: Run) -> Callable[..., Any]:
    """Runs a command with --json; its document, and nothing but that on stdout."""

    def run(*arguments: str, code: int = 0) -> Any:
        said = pgq_command(*arguments, "--json")
        assert said.code == code, said.err
        return json.loads(said.out)

    return run


def audit(database: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "select source, action, target from pgqueue.audit_log order by id"
        ).fetchall()


def test_enqueue_takes_what_python_takes(
    add: Callable[..., int], document: Callable[..., Any], pgq_command: Run
) -> None:
    key = ("--unique-key", "once", "--unique-for", "3600")
    first = add(*key, "--expires-at", "2090-01-31T08:00:00+01:00", "--timeout", "2.5")
    row = document("jobs", "show", str(first))
    assert row["expires_at"] == "2090-01-31T07:00:00+00:00"
    assert row["timeout"] == 2.5

    assert add(*key) == first
    assert add(*key, "--unique-mode", "replace") == first
    said = pgq_command("enqueue", "add", '{"a": 1}', *key, "--unique-mode", "raise")
    assert (said.code, said.out) == (1, "")
    assert f"unique key 'once' is taken by job {first}" in said.err


def test_list_is_an_array_of_objects_with_the_sql_column_names(
    add: Callable[..., int], document: Callable[..., Any], database: str
) -> None:
    first, second = add("--tenant", "acme"), add()
    end(database, first)

    rows = document("jobs", "list")

    with psycopg.connect(database) as connection:
        view = connection.execute("select * from pgqueue.all_jobs")
        assert view.description is not None
        assert set(rows[0]) == {column.name for column in view.description}
    assert [row["id"] for row in rows] == [second, first]
    assert (rows[1]["status"], rows[1]["tenant"]) == ("failed", "acme")
    assert rows[1]["errors"][0]["reason"] == "exception"


def test_list_filters_and_pages(
    add: Callable[..., int], document: Callable[..., Any], database: str
) -> None:
    ids = [add("--tag", "red"), add("--queue", "email"), add("--delay", "60"), add()]
    end(database, ids[3])

    def listed(*options: str) -> list[int]:
        return [row["id"] for row in document("jobs", "list", *options)]

    assert listed("--tag", "red") == [ids[0]]
    assert listed("--queue", "email") == [ids[1]]
    assert listed("--status", "scheduled") == [ids[2]]
    assert listed("--state", "failed", "--state", "completed") == [ids[3]]
    assert listed("--reason", "exception", "--task", "add") == [ids[3]]
    assert listed("--since", "1h", "--until", "2000-01-01T00:00:00Z") == []
    assert listed("--since", "2w") == ids[::-1]
    assert listed("--limit", "2") == ids[:1:-1]
    assert listed("--limit", "2", "--before", str(ids[2])) == ids[1::-1]
    assert document("jobs", "list", "--tenant", "nobody") == []


def test_list_tells_people_the_state_and_where_the_next_page_is(
    add: Callable[..., int], pgq_command: Run, database: str
) -> None:
    first = add()
    end(database, first, reason="timeout")

    said = pgq_command("jobs", "list", "--limit", "1")

    assert "failed" in said.out
    assert "timeout" in said.out
    assert f"the next page: --before {first}" in said.out
    assert pgq_command("jobs", "list", "--task", "none").out == "no such jobs\n"


def test_list_says_the_reason_of_jobs_that_did_not_get_over_it(
    add: Callable[..., int], pgq_command: Run, database: str
) -> None:
    failed, completed = add(), add()
    end(database, failed, reason="timeout")
    end(database, completed, reason="connection-lost", state="completed")

    said = pgq_command("jobs", "list")

    assert "timeout" in said.out
    assert "connection-lost" not in said.out


def test_what_jobs_bring_along_cannot_steer_the_terminal(
    add: Callable[..., int], pgq_command: Run, database: str
) -> None:
    job = add("--tenant", "\x1b[2Jacme\u202e\x9b\r\nnext")
    end(database, job, reason="\x1b]0;owned\x07")

    for arguments in (("jobs", "list"), ("jobs", "show", str(job)), ("jobs", "why", str(job))):
        said = pgq_command(*arguments)
        assert said.code == 0
        assert not set(said.out) & set("\x1b\x07\x9b\r\u202e"), arguments
    assert "[2Jacme next" in pgq_command("jobs", "show", str(job)).out


def test_show_has_the_fields_the_timeline_the_log_and_the_reason_why(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    job = add("--tenant", "acme")
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into pgqueue.job_logs (job_id, attempt, message) values (%s, 1, 'half way')",
            [job],
        )
        connection.execute(
            """update pgqueue.jobs set progress = '{"percent": 50, "message": "x"}'"""
        )

    shown = document("jobs", "show", str(job))
    assert (shown["id"], shown["tenant"], shown["payload"]) == (job, "acme", {"a": 1})
    assert shown["timeline"][0]["event"] == "created"
    assert [line["message"] for line in shown["logs"]] == ["half way"]
    assert [cause["cause"] for cause in shown["why"]] == ["no-worker"]

    text = pgq_command("jobs", "show", str(job)).out
    for part in (f"job {job}: add, queued", "acme", "50 % x", "created", "half way", "no-worker: "):
        assert part in text


def test_why_is_an_array_of_causes(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any]
) -> None:
    job = add("--delay", "3600")

    causes = document("jobs", "why", str(job))

    assert [set(cause) for cause in causes] == [{"cause", "message", "details"}] * 2
    assert [cause["cause"] for cause in causes] == ["future", "no-worker"]
    assert pgq_command("jobs", "why", str(job)).out.startswith("future: its time is ")


def test_why_of_an_unknown_job_says_so_and_is_a_failure(document: Callable[..., Any]) -> None:
    assert document("jobs", "why", "4711", code=1)[0]["cause"] == "not-found"


def test_retry_by_ids(add: Callable[..., int], document: Callable[..., Any], database: str) -> None:
    failed, later, due, completed = add(), add("--delay", "60"), add(), add()
    end(database, failed)
    end(database, completed, state="completed")

    assert document("jobs", "retry", str(failed), str(later), str(due)) == {
        "retried": [failed], "run_now": [later], "live": [due], "refused": [], "missing": [],
    }  # fmt: skip
    assert document("jobs", "retry", str(completed), "4711", code=1) == {
        "retried": [], "run_now": [], "live": [], "missing": [4711],
        "refused": [{"id": completed, "reason": "it completed: replay it to run it again"}],
    }  # fmt: skip
    assert audit(database) == [
        ("cli", "run-now", f"job {later}"), ("cli", "retry", f"job {failed}"),
    ]  # fmt: skip


def test_retry_by_filter_shows_first_and_does_then(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    ids = [add("--queue", "email") for _ in range(3)]
    end(database, *ids)

    preview = document("jobs", "retry", "--queue", "email", "--dry-run")
    assert (preview["count"], [row["id"] for row in preview["sample"]]) == (3, ids[::-1])
    said = pgq_command("jobs", "retry", "--state", "failed", "--dry-run").out
    assert "would run again: 3; nothing was changed" in said
    assert audit(database) == []

    assert document("jobs", "retry", "--queue", "email")["retried"] == ids
    assert pgq_command("jobs", "retry", "--queue", "email").out == "nothing came back\n"


def test_replay_edits_the_payload(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    job = add()
    end(database, job, state="completed")

    said = pgq_command("jobs", "replay", str(job), "--merge", '{"a": 5, "b": 6}')

    assert (said.code, said.out) == (0, f"queued again (1): {job}\n")
    assert document("jobs", "show", str(job))["payload"] == {"a": 5, "b": 6}
    end(database, job)
    assert document("jobs", "replay", str(job))["retried"] == [job]


def test_replay_edits_many_and_refuses_those_that_do_not_fit(
    add: Callable[..., int], document: Callable[..., Any], pgq_command: Run, database: str
) -> None:
    fits = add()
    other = json.loads(pgq_command("enqueue", "report", '{"day": "x"}', "--json").out)["id"]
    end(database, fits, other, state="completed")

    assert document("jobs", "replay", "--state", "completed", "--dry-run")["count"] == 2
    assert document("jobs", "replay", "--queue", "default", "--dry-run")["count"] == 0
    done = document("jobs", "replay", "--state", "completed", "--merge", '{"b": 9}', code=1)

    assert done["retried"] == [fits]
    assert [refused["id"] for refused in done["refused"]] == [other]
    assert "payload of task 'report' is not valid: b: " in done["refused"][0]["reason"]
    assert document("jobs", "show", str(fits))["payload"] == {"a": 1, "b": 9}


def test_of_many_that_are_refused_some_are_named_and_the_rest_is_a_number(
    pgq_command: Run, database: str
) -> None:
    ids = [
        json.loads(pgq_command("enqueue", "report", '{"day": "x"}', "--json").out)["id"]
        for _ in range(22)
    ]
    end(database, *ids, state="completed")
    said = pgq_command("jobs", "replay", "--state", "completed", "--merge", '{"b": 9}')
    assert said.code == 1
    assert said.out.count(" is not valid: b: ") == 20
    assert "and 2 more refused: --json names them all" in said.out


def test_a_task_that_the_built_in_app_does_not_know_asks_for_the_app(
    pgq_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGQUEUE_APP", raising=False)
    said = pgq_command("enqueue", "add", '{"a": 1}')
    assert said.code == 2
    assert "--app MODULE:ATTR or PGQUEUE_APP" in said.err


def test_cancel_and_delete(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    waiting, running, other = add(), add(), add()
    run_on(database, running, worker(database))

    done = document("jobs", "cancel", str(waiting), str(running), "4711", code=1)
    assert done == {"cancelled": [waiting], "marked": [running], "missing": [4711]}
    done = document("jobs", "delete", str(waiting), str(running), "4711", code=1)
    assert done == {"deleted": [waiting], "running": [running], "missing": [4711]}
    assert pgq_command("jobs", "delete", str(other)).out == f"deleted (1): {other}\n"
    assert [row[1] for row in audit(database)] == ["cancel", "delete", "delete"]


def test_queues_pause_and_go_on(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    add("--queue", "email")

    said = pgq_command("queues", "pause", "email", "--reason", "deploy")
    assert (said.code, said.out) == (0, "queue email is paused\n")
    (row,) = document("queues", "list")
    assert (row["queue"], row["paused"], row["queued"]) == ("email", True, 1)
    assert (row["paused_by"], row["pause_reason"]) == (this_user().who, "deploy")
    assert isinstance(row["oldest_due"], float)
    assert pgq_command("queues", "pause", "email").out == "queue email was already paused\n"
    resumed = {"queue": "email", "paused": False, "changed": True}
    assert document("queues", "resume", "email") == resumed
    assert pgq_command("queues", "resume", "email").out == "queue email was not paused\n"
    assert "email" in pgq_command("queues", "list").out


def test_stats_has_queues_tasks_workers_and_the_next_runs(
    add: Callable[..., int], pgq_command: Run, document: Callable[..., Any], database: str
) -> None:
    done, _ = add(), add()
    end(database, done, state="completed")
    worker(database, tasks=["add"], slots=4)
    pgq_command(
        "schedule",
        "add",
        "nightly",
        "--cron",
        "0 2 * * *",
        "--task",
        "add",
        "--payload",
        '{"a": 1}',
    )

    figures = document("stats")

    assert figures["queues"][0]["queued"] == 1
    assert figures["tasks"][0]["completed"] == 1
    assert (figures["workers"][0]["concurrency"], figures["workers"][0]["alive"]) == (4, True)
    assert figures["schedules"][0]["name"] == "nightly"
    text = pgq_command("stats").out
    assert all(part in text for part in ("Queues", "add", "host-1", "nightly"))


def test_tasks_are_listed_without_a_database(
    pgq_command: Run, document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", "postgresql://127.0.0.1:1/none")

    rows = document("tasks", "list")

    assert [row["name"] for row in rows] == ["add", "report"]
    assert rows[0] == {
        "name": "add", "queue": "default", "priority": 5, "attempts": 1, "timeout": None,
        "parameters": ["a", "b"],
    }  # fmt: skip
    assert "report" in pgq_command("tasks", "list").out

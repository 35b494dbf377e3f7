"""Whatever a person gets wrong: one clear line, exit code 1 or 2, no traceback, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgqueue.db.version import KNOWN_REVISIONS

Run = Callable[..., Any]
"""Takes the arguments of `pgq`; returns its exit code, stdout and stderr (conftest.Said)."""

ADD = ("schedule", "add", "x", "--cron", "* * * * *", "--task", "add", "--payload", '{"a": 1}')
ENQUEUE = ("enqueue", "add", '{"a": 1}')
NEED_TABLES = [ENQUEUE, ("schedule", "tick"), ("schedule", "list"), ADD]

NO_DELAY = "is not valid: 0 seconds or more, 100 years at most"
NO_TIME = "is not a time: use ISO 8601 with zone, 2030-01-31T08:00:00+01:00"
NO_QUEUE = "is not valid: 1 to 100 letters, digits and the signs _ . : -"
NO_ZONE = "is not known: use an IANA name such as 'Europe/Bratislava' or 'UTC'"
NOT_MIGRATED = "the database has no pgqueue tables in schema 'pgqueue': run `pgq migrate`"
TOO_NEW = "which this pgqueue does not know: upgrade the pgqueue package"


def schedule(**changes: str) -> tuple[str, ...]:
    """`schedule add` with a good definition, and something wrong in it."""
    good = {"cron": "* * * * *", "task": "add", "payload": '{"a": 1}'}
    options = {**good, **changes}
    name = options.pop("name", "x")
    given = [
        part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)
    ]
    return ("schedule", "add", name, *given)


WRONG = {
    "a task that nobody knows": (
        ("enqueue", "nope"),
        "task 'nope' is not known here; known tasks: add, report",
    ),
    "a payload of the wrong type": (
        ("enqueue", "add", '{"a": "x"}'),
        (
            "payload of task 'add' is not valid: a: Input should be a valid integer, "
            "unable to parse string as an integer"
        ),
    ),
    "an argument left out": (
        ("enqueue", "add", '{"b": 1}'),
        "payload of task 'add' is not valid: a: Field required",
    ),
    "an argument too many": (
        ("enqueue", "add", '{"a": 1, "c": 3}'),
        "payload of task 'add' is not valid: c: Extra inputs are not permitted",
    ),
    "a payload that is not JSON": (
        ("enqueue", "add", "{a: 1}"),
        (
            "the payload is not JSON: Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1)"
        ),
    ),
    "a payload that is a list": (
        ("enqueue", "add", "[1]"),
        "the payload must be a JSON object, such as '{\"n\": 1}'",
    ),
    "a number that JSON does not have": (
        ("enqueue", "add", '{"a": NaN}'),
        "payload of task 'add' is not valid: a: Input should be a finite number",
    ),
    "a character that Postgres cannot store": (
        ("enqueue", "report", '{"day": "a\\u0000b"}'),
        (
            "payload of task 'report' is not valid: payload: holds a NUL character, which Postgres "
            "cannot store"
        ),
    ),
    "a priority above 9": (
        (*ENQUEUE, "--priority", "11"),
        "priority 11 is not valid: 0 to 9, higher first",
    ),
    "a negative priority": (
        (*ENQUEUE, "--priority", "-1"),
        "priority -1 is not valid: 0 to 9, higher first",
    ),
    "a negative delay": ((*ENQUEUE, "--delay", "-1"), f"delay -1.0 {NO_DELAY}"),
    "an endless delay": ((*ENQUEUE, "--delay", "inf"), f"delay inf {NO_DELAY}"),
    "a delay past the end of time": (
        (*ENQUEUE, "--delay", "3e11"),
        f"delay 300000000000.0 {NO_DELAY}",
    ),
    "a time that Python cannot read back": (
        (*ENQUEUE, "--run-at", "9999-12-31T23:59:59-12:00"),
        "run_at 9999-12-31T23:59:59-12:00 is not valid: from the year 1970 to 9998",
    ),
    "a time in words": ((*ENQUEUE, "--run-at", "tomorrow"), f"--run-at 'tomorrow' {NO_TIME}"),
    "a time without a zone": (
        (*ENQUEUE, "--run-at", "2030-01-01T00:00:00"),
        f"--run-at '2030-01-01T00:00:00' {NO_TIME}",
    ),
    "a thirteenth month": (
        (*ENQUEUE, "--run-at", "2030-13-01T00:00:00Z"),
        f"--run-at '2030-13-01T00:00:00Z' {NO_TIME}",
    ),
    "a time and a delay": (
        (*ENQUEUE, "--run-at", "2030-01-01T00:00:00Z", "--delay", "3"),
        "run_at and delay exclude each other: give one of them",
    ),
    "a queue with a space": ((*ENQUEUE, "--queue", "a b"), f"queue name 'a b' {NO_QUEUE}"),
    "a minute 61": (
        schedule(cron="61 * * * *"),
        "cron expression '61 * * * *' is not valid: field 1 (minute) is '61'; allowed: 0-59",
    ),
    "a cron expression of one word": (
        schedule(cron="nope"),
        (
            "cron expression 'nope' is not valid: 1 fields; needs 5 "
            "(minute hour day month weekday) or 6 (second last)"
        ),
    ),
    "a date that never comes": (
        schedule(cron="0 0 31 2 *"),
        "cron expression '0 0 31 2 *' is not valid: it never fires: no date has all it asks for",
    ),
    "a zone of another planet": (
        schedule(timezone="Mars/Base"),
        f"time zone 'Mars/Base' {NO_ZONE}",
    ),
    "no zone at all": (schedule(timezone=""), f"time zone '' {NO_ZONE}"),
    "a zone that is a path": (
        schedule(timezone="../../etc/passwd"),
        f"time zone '../../etc/passwd' {NO_ZONE}",
    ),
    "a schedule of an unknown task": (
        schedule(task="nope"),
        "task 'nope' is not known here; known tasks: add, report",
    ),
    "a schedule whose payload lacks an argument": (
        schedule(payload="{}"),
        "payload of task 'add' is not valid: a: Field required",
    ),
    "a catch-up policy that does not exist": (
        schedule(catch_up="some"),
        "catch_up 'some' is not valid: all, latest, none",
    ),
    "a negative delay of a schedule": (
        schedule(delay="-5"),
        "delay -5.0 is not valid: 0 to 31622400 seconds",
    ),
    "a delay of a schedule that is no number": (
        schedule(delay="nan"),
        "delay nan is not valid: 0 to 31622400 seconds",
    ),
    "a schedule without a name": (
        schedule(name=""),
        "schedule name '' is not valid: 1 to 200 printable characters",
    ),
    "a schedule on a queue with a space": (schedule(queue="a b"), f"queue name 'a b' {NO_QUEUE}"),
    "an app without an attribute": (
        ("schedule", "tick", "--app", "nope"),
        "app 'nope' is not valid: use module:attribute",
    ),
    "an app in no module": (
        ("schedule", "tick", "--app", "nope:pgq"),
        "app 'nope:pgq' cannot be imported: No module named 'nope'",
    ),
    "an app that is something else": (
        ("schedule", "tick", "--app", "os:sep"),
        "app 'os:sep': sep is a str; it must be a PgQueue",
    ),
    "an app that is not there": (
        ("schedule", "tick", "--app", "os:pgq"),
        "app 'os:pgq': pgq does not exist; it must be a PgQueue",
    ),
    "a revision that does not exist": (
        ("migrate", "--to", "nope"),
        "cannot migrate to 'nope': Can't locate revision identified by 'nope'",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    wrong: str, rows: Callable[[], int], app: str, pgq_command: Run
) -> None:
    arguments, line = WRONG[wrong]
    said = pgq_command(*arguments)
    assert (said.code, said.out, said.err) == (2, "", f"pgq: {line}\n")
    assert rows() == 0


UNUSABLE = {
    "no such command": (("nope",), "Error: No such command 'nope'."),
    "no task": (("enqueue",), "Error: Missing argument 'task'."),
    "no cron expression": (("schedule", "add", "x"), "Error: Missing option '--cron'."),
    "a priority in words": (
        (*ENQUEUE, "--priority", "high"),
        (
            "Error: Invalid value for '--priority': Input should be a valid integer, "
            "unable to parse string as an integer"
        ),
    ),
    "a worker without slots": (
        ("worker", "--concurrency", "0"),
        "Error: Invalid value for '--concurrency': Input should be greater than or equal to 1",
    ),
    "a worker with fewer than no slots": (
        ("worker", "--concurrency", "-1"),
        "Error: Invalid value for '--concurrency': Input should be greater than or equal to 1",
    ),
    "a negative shutdown timeout": (
        ("worker", "--shutdown-timeout", "-1"),
        "Error: Invalid value for '--shutdown-timeout': Input should be greater than or equal to 0",
    ),
    "a negative wait": (
        ("worker", "--wait-for-db", "-1"),
        "Error: Invalid value for '--wait-for-db': Input should be greater than or equal to 0",
    ),
}


@pytest.mark.parametrize("wrong", UNUSABLE)
def test_a_command_that_cannot_be_read_ends_with_the_reason(
    wrong: str, rows: Callable[[], int], app: str, pgq_command: Run
) -> None:
    arguments, line = UNUSABLE[wrong]
    said = pgq_command(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: pgq")
    assert said.err.splitlines()[-1] == line
    assert rows() == 0


SETTINGS = {
    "PGQUEUE_SCHEMA": (
        "a b",
        "schema name 'a b' is not valid: use letters, digits and _, 30 characters at most",
    ),
    "PGQUEUE_CONCURRENCY": ("0", "Input should be greater than or equal to 1"),
    "PGQUEUE_HEARTBEAT_TIMEOUT": ("-1", "Input should be greater than 0"),
    "PGQUEUE_HEARTBEAT_INTERVAL": (
        "often",
        "Input should be a valid number, unable to parse string as a number",
    ),
    "PGQUEUE_POLL_INTERVAL": ("inf", "Input should be less than or equal to 86400"),
    "PGQUEUE_SHUTDOWN_TIMEOUT": ("1e300", "Input should be less than or equal to 86400"),
    "PGQUEUE_DATABASE_URL": (
        "mysql://u:secret@host/x",
        (
            "database URL starts with mysql://, and pgqueue speaks to Postgres only: "
            "use postgresql://user@host/database"
        ),
    ),
    "DATABASE_URL": (
        "host=db password=secret nonsense",
        "database URL cannot be read: use postgresql://user@host:port/database",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_not_valid_is_named(
    name: str, rows: Callable[[], int], app: str, pgq_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, reason = SETTINGS[name]
    if name == "DATABASE_URL":
        monkeypatch.delenv("PGQUEUE_DATABASE_URL")
    with monkeypatch.context() as settings:
        settings.setenv(name, value)
        said = pgq_command(*ENQUEUE)
    shown = "PGQUEUE_DATABASE_URL" if name == "DATABASE_URL" else name
    assert (said.code, said.err) == (2, f"pgq: settings are not valid: {shown}: {reason}\n")
    assert "secret" not in said.err
    assert rows() == 0


NOBODY_LISTENS = ("127.0.0.1:1", "127.0.0.1:1: Connection refused")
NO_SUCH_HOST = ("no-such-host.invalid", "no-such-host.invalid: failed to resolve host")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        *((command, NOBODY_LISTENS) for command in (*NEED_TABLES, ("migrate",))),
        (ENQUEUE, NO_SUCH_HOST),
    ],
)
def test_an_unreachable_database_is_told_by_its_cause_and_without_its_password(
    command: tuple[str, ...],
    place: tuple[str, str],
    app: str,
    pgq_command: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, reason = place
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", f"postgresql://u:secret@{host}/x")
    said = pgq_command(*command)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"pgq: cannot connect to database 'x' at {reason}")
    assert said.err.count("\n") == 1
    assert "secret" not in said.err


@pytest.mark.parametrize("command", NEED_TABLES, ids=" ".join)
def test_a_database_without_our_tables_names_the_next_step(
    command: tuple[str, ...],
    app: str,
    pgq_command: Run,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", empty_database)
    said = pgq_command(*command)
    assert (said.code, said.out, said.err) == (1, "", f"pgq: {NOT_MIGRATED}\n")


FUTURES = {
    "an unknown revision": (
        "update pgqueue.alembic_version set version_num = '9999'",
        f"schema 'pgqueue' is at revision 9999, {TOO_NEW}",
    ),
    "an incompatible version": (
        "update pgqueue.schema_info set version = 99, min_compatible = 99",
        f"schema 'pgqueue' is at version 99 (revision {KNOWN_REVISIONS[-1]}), {TOO_NEW}",
    ),
}


@pytest.mark.parametrize("command", NEED_TABLES, ids=" ".join)
@pytest.mark.parametrize("future", FUTURES)
def test_a_database_of_a_later_pgqueue_is_left_alone(
    future: str,
    command: tuple[str, ...],
    rows: Callable[[], int],
    app: str,
    pgq_command: Run,
    database: str,
) -> None:
    change, line = FUTURES[future]
    with psycopg.connect(database) as connection:
        connection.execute(change)
    said = pgq_command(*command)
    assert (said.code, said.out, said.err) == (1, "", f"pgq: {line}\n")
    assert rows() == 0


def test_a_later_revision_is_not_migrated(
    rows: Callable[[], int], pgq_command: Run, database: str
) -> None:
    change, line = FUTURES["an unknown revision"]
    with psycopg.connect(database) as connection:
        connection.execute(change)
    said = pgq_command("migrate")
    assert (said.code, said.out, said.err) == (1, "", f"pgq: {line}\n")


def test_what_the_database_refuses_of_a_migration_is_one_short_line(
    pgq_command: Run, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("create schema pgqueue")
        connection.execute("create table pgqueue.jobs (id bigint)")
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", empty_database)
    said = pgq_command("migrate")
    refused = 'pgq: the database refused: relation "jobs" already exists\n'
    assert (said.code, said.out, said.err) == (1, "", refused)


BROKEN_APPS = {
    "import nothing_there": "No module named 'nothing_there'",
    "1 / 0": "ZeroDivisionError: division by zero (PGQUEUE_DEBUG=1 shows where)",
    "def (": "SyntaxError: invalid syntax (broken_1.py, line 1) (PGQUEUE_DEBUG=1 shows where)",
    "raise SystemExit(3)": "SystemExit: 3 (PGQUEUE_DEBUG=1 shows where)",
}


@pytest.mark.parametrize("code", BROKEN_APPS)
def test_an_app_that_fails_at_import_is_one_line(
    code: str, rows: Callable[[], int], folder: Path, pgq_process: Run
) -> None:
    (folder / "broken_1.py").write_text(code + "\n", encoding="utf-8")
    said = pgq_process("schedule", "tick", "--app", "broken_1:pgq")
    line = f"pgq: app 'broken_1:pgq' cannot be imported: {BROKEN_APPS[code]}\n"
    assert (said.code, said.out, said.err) == (2, "", line)
    assert rows() == 0

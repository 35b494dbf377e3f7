"""pgq limits: list, set, reset, check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Run = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("app", "rows")


def test_a_limit_is_set_for_a_while_listed_and_taken_back(pgq_command: Run) -> None:
    said = pgq_command("limits", "set", "tenant:acme", "--running", "10", "--for", "1h", "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert (found["name"], found["running"], found["used"], found["free"]) == (
        "tenant:acme",
        10,
        0,
        10,
    )
    assert found["until"] is not None
    assert json.loads(pgq_command("limits", "list", "--json").out) == [found]
    assert "tenant:acme" in pgq_command("limits", "list").out
    assert pgq_command("limits", "reset", "tenant:acme").out == "limit tenant:acme is as declared\n"
    assert pgq_command("limits", "reset", "tenant:acme").out == "limit tenant:acme was not set\n"


@pytest.mark.parametrize(
    ("per", "seconds"),
    [("90", 90), ("0.5", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86_400)],
)
def test_a_period_is_seconds_or_a_time(pgq_command: Run, per: str, seconds: float) -> None:
    said = pgq_command("limits", "set", "api", "--starts", "10", "--per", per, "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert (found["starts"], found["per"]) == (10, seconds)


def test_a_name_that_nobody_declared_is_set_and_doubted(pgq_command: Run) -> None:
    said = pgq_command("limits", "set", "tenant:amce", "--running", "10")
    assert said.code == 0
    assert "no task has declared limit tenant:amce yet" in said.err
    said = pgq_command("limits", "set", "queue:mail", "--running", "10")
    assert (said.code, said.err) == (0, "")


def test_check_exits_with_1_where_a_limit_is_exceeded(pgq_command: Run, database: str) -> None:
    assert pgq_command("limits", "set", "email", "--running", "1").code == 0
    said = pgq_command("limits", "check")
    assert (said.code, said.out) == (0, "no limit is exceeded\n")
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into pgqueue.jobs (task, queue, limits, admitted_seq, run_at) "
            "select 'add', 'default', '{email}', n, now() + interval '1 s' "
            "from generate_series(1, 2) as n"
        )
    said = pgq_command("limits", "check")
    assert said.code == 1
    assert said.out.startswith("email: 2 of 1 jobs at once: (")
    (found,) = json.loads(pgq_command("limits", "check", "--json").out)
    assert (found["name"], found["allowed"], found["found"]) == ("email", 1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("email",), "limit 'email' limits nothing: give running, or starts and per"),
        (("email", "--starts", "3"), "starts and per belong together"),
        (("email", "--running", "1", "--for", "soon"), "--for 'soon' is not a time"),
        (("email", "--starts", "3", "--per", "soon"), "--per 'soon' is not a time"),
        (("email", "--starts", "3", "--per", "5 m"), "use one such as 90, 30s, 10m, 1h or 1d"),
        (("email", "--starts", "3", "--per", "0"), "per 0.0 is not valid: more than 0 seconds"),
        (("email", "--starts", "3", "--per", "-1"), "per -1.0 is not valid"),
        (("email", "--starts", "3", "--per", "nan"), "per nan is not valid"),
        (("email", "--starts", "3", "--per", "2d"), "is not valid: more than 0 seconds, one day"),
        (("@new", "--running", "1"), "it begins with a letter or a digit"),
        (("queue:a b", "--running", "1"), "queue name 'a b' is not valid"),
        (("user:{id}", "--running", "1"), "is declared by no task"),
        (("ordered:x", "--running", "1"), "'ordered:x' is an order"),
    ],
)
def test_what_cannot_be_set_is_refused(
    pgq_command: Run, arguments: tuple[str, ...], message: str
) -> None:
    said = pgq_command("limits", "set", *arguments)
    assert said.code == 2
    assert message in " ".join(said.err.split())

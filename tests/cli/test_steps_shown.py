"""A job's steps, and for what it waits, as `pgq jobs` tells people and machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from endings import end, run_on
from proving import rows, value

Run = Callable[..., Any]
"""Takes the arguments of `pgq`; returns its exit code, stdout and stderr (conftest.Said)."""

pytestmark = pytest.mark.usefixtures("app", "rows")

KEPT = (
    "insert into pgqueue.job_steps (job_id, kind, name, attempt, finished_at, result) "
    "values (%s, 'step', 'charge', 1, now(), '\"receipt 7\"')"
)
WAITS = (
    "insert into pgqueue.job_steps (job_id, kind, name, attempt, wake_at, event, event_key) "
    "values (%s, 'wait', 'paid:7', 1, '2090-01-01T00:00:00Z', 'paid', '7')"
)


def _added(pgq_command: Run, *options: str) -> str:
    said = pgq_command("enqueue", "add", '{"a": 1}', *options, "--json")
    return str(json.loads(said.out)["id"])


def test_show_lists_the_steps_and_why_says_for_what_it_waits(
    pgq_command: Run, database: str
) -> None:
    job_id = _added(pgq_command, "--delay", "3600")
    rows(database, KEPT, [job_id])
    rows(database, WAITS, [job_id])
    shown = pgq_command("jobs", "show", job_id)
    assert "charge" in shown.out
    assert "receipt 7" in shown.out
    told = "it waits for event 'paid' of '7', until 2090-01-01T00:00:00+00:00 at most"
    assert told in shown.out
    (step, wait) = json.loads(pgq_command("jobs", "show", job_id, "--json").out)["steps"]
    assert (step["name"], step["result"], wait["event_key"]) == ("charge", "receipt 7", "7")
    (cause,) = json.loads(pgq_command("jobs", "why", job_id, "--json").out)
    assert (cause["cause"], cause["details"]["event"]) == ("waits", "paid")


@pytest.mark.parametrize(("option", "left"), [([], 1), (["--from-start"], 0)])
def test_a_retry_keeps_the_steps_or_forgets_them(
    pgq_command: Run, database: str, option: list[str], left: int
) -> None:
    job_id = _added(pgq_command)
    run_on(database, int(job_id), 1)
    rows(database, KEPT, [job_id])
    end(database, int(job_id))
    said = pgq_command("jobs", "retry", job_id, *option)
    assert said.code == 0, said.err
    assert value(database, "select count(*) from pgqueue.job_steps") == left

"""pgq emit: say that something has happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from proving import rows

Run = Callable[..., Any]
"""Takes the arguments of `pgq`; returns its exit code, stdout and stderr (conftest.Said)."""

pytestmark = pytest.mark.usefixtures("app", "rows")

EVENTS = "select name, key, payload from pgqueue.events order by id"
WAITS = (
    "insert into pgqueue.job_steps (job_id, kind, name, attempt, event, event_key) "
    "values (%s, 'wait', 'paid:7', 1, 'order-paid', '7')"
)


def test_an_event_is_written_down_and_brought_to_who_waits(pgq_command: Run, database: str) -> None:
    job = json.loads(pgq_command("enqueue", "add", '{"a": 1}', "--delay", "3600", "--json").out)
    rows(database, WAITS, [job["id"]])
    said = pgq_command("emit", "order-paid", "7", '{"amount": 12}')
    assert (said.code, said.err) == (0, "")
    assert said.out == "event 1: order-paid of 7\n"
    assert rows(database, "select woken from pgqueue.deliver_events()") == [(1,)]
    kept = "select result from pgqueue.job_steps where job_id = %s"
    assert rows(database, kept, [job["id"]]) == [({"amount": 12},)]


@pytest.mark.parametrize("payload", ["null", "7", '"paid"', "[1, 2]", '{"a": {"b": []}}'])
def test_it_carries_any_json(pgq_command: Run, database: str, payload: str) -> None:
    said = pgq_command("emit", "order-paid", "7", payload, "--json")
    assert json.loads(said.out) == {"id": 1, "event": "order-paid", "key": "7"}
    assert rows(database, EVENTS) == [("order-paid", "7", json.loads(payload))]


def test_without_json_it_carries_nothing(pgq_command: Run, database: str) -> None:
    assert pgq_command("emit", "order-paid", "7").code == 0
    assert rows(database, EVENTS) == [("order-paid", "7", None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'EVENT'"),
        (("paid",), "Missing argument 'KEY'"),
        (("paid", "7", "{amount: 12}"), "the payload is not JSON: Expecting property name"),
        (("paid", "7", ""), "the payload is not JSON: Expecting value"),
        (("paid", "7", "NaN"), "payload of event 'paid' cannot be stored"),
        (("paid", "7", '"\\u0000"'), "payload of event 'paid' cannot be stored"),
        (("paid", "7", "[" * 100_000), "the payload is not JSON: it is nested too deeply"),
        (("", "7"), "event name '' is not valid"),
        (("paid", "k" * 1001), "event key"),
        (("paid", "7", "1", "2"), "unexpected extra argument"),
    ],
)
def test_what_is_no_event_is_refused(
    pgq_command: Run, database: str, arguments: tuple[str, ...], message: str
) -> None:
    said = pgq_command("emit", *arguments)
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert rows(database, EVENTS) == []


def test_a_payload_of_enqueue_that_is_nested_too_deeply_is_refused_too(pgq_command: Run) -> None:
    said = pgq_command("enqueue", "add", "[" * 100_000)
    assert said.code == 2
    assert "the payload is not JSON: it is nested too deeply" in " ".join(said.err.split())

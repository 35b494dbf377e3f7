"""What is wrong with a schedule is said when it is declared, and names the option."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgqueue import PgQueue
from pgqueue.errors import ConfigError, TaskUnknown

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"delay": -1}, "delay -1 is not valid"),
    ({"delay": "soon"}, "delay 'soon' is not valid"),
    ({"jitter": float("nan")}, "jitter nan is not valid"),
    ({"overlap": "sometimes"}, "overlap 'sometimes' is not valid: queue, skip"),
    ({"catch_up": "some"}, "catch_up 'some' is not valid: all, latest, none"),
    ({"catch_up_max_age": 0}, "catch_up_max_age 0 is not valid"),
    ({"catch_up_max_count": 0}, "catch_up_max_count 0 is not valid"),
    ({"catch_up_max_count": 10_001}, "catch_up_max_count 10001 is not valid"),
    ({"window_mode": "backfill"}, "window_mode 'backfill' is not valid: window, since-last-run"),
    ({"priority": 10}, "priority 10 is not valid"),
    ({"tags": "one"}, "tags"),
    ({"tenant": ""}, "tenant"),
    ({"timeout": 0}, "timeout 0 is not valid"),
    ({"starts_at": datetime(2030, 1, 1)}, "starts_at"),  # noqa: DTZ001 - no zone: that is the point
    ({"starts_at": NOW, "ends_at": NOW}, "starts_at must be before ends_at"),
    ({"after": "s"}, "cannot run after itself"),
    ({"after": "a", "window_mode": "since-last-run"}, "after needs windows"),
    ({"every": "8h"}, "unknown option 'every': a schedule has cron"),
    ({"name": "a\nb"}, "1 to 200 printable characters"),
    ({"name": "\ud800"}, "1 to 200 printable characters"),
    ({"delay": True}, "delay True is not valid"),
    ({"payload": []}, "payload .* is not valid: a mapping"),
    ({"task": None}, "task None is not valid"),
    ({"after": ""}, "schedule name '' is not valid"),
    ({"name": ""}, "schedule name '' is not valid"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_definition_is_refused_before_anything_is_stored(
    wrong: dict[str, Any], says: str
) -> None:
    pgq = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")

    @pgq.task
    def fire() -> None: ...

    definition = {"name": "s", "cron": "@daily", "task": fire, **wrong}
    with pytest.raises(ConfigError, match=says.replace("'", "['\"]")):
        pgq.schedule(**definition)
    assert pgq.schedules == {}


def test_two_schedules_cannot_have_one_name() -> None:
    pgq = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")

    @pgq.task
    def fire() -> None: ...

    first = pgq.schedule("s", cron="@daily", task=fire)
    assert pgq.schedule("s", cron="@daily", task=fire) == first
    with pytest.raises(ConfigError, match="two schedules are named 's': give one of them another"):
        pgq.schedule("s", cron="@hourly", task=fire)
    assert pgq.schedules["s"].cron == "@daily"


def test_a_schedule_of_an_unknown_task_is_refused() -> None:
    pgq = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(TaskUnknown):
        pgq.schedule("s", cron="@daily", task="nope")


def test_a_declared_schedule_takes_over_what_its_task_says() -> None:
    pgq = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")

    @pgq.task(queue="night", priority=2, tags=["a"], tenant="acme", timeout=timedelta(minutes=5))
    def fire() -> None: ...

    columns = pgq.schedule("s", cron="@daily", task=fire, priority=9).job_params()
    assert {name: columns[name] for name in ("queue", "priority", "tags", "tenant", "timeout")} == {
        "queue": "night",
        "priority": 9,
        "tags": ["a"],
        "tenant": "acme",
        "timeout": 300.0,
    }

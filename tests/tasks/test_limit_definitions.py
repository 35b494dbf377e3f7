"""Limits that cannot be are refused where they are written, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgqueue import ConfigError, Limit, Order, PgQueue
from pgqueue.tasks.limits import pattern_of

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "no figure": (
        lambda: Limit("email"),
        "limit 'email' limits nothing: give running, or starts and per",
    ),
    "starts alone": (
        lambda: Limit("email", starts=3),
        "limit 'email': starts and per belong together, as in starts=10, per=1",
    ),
    "per alone": (
        lambda: Limit("email", running=3, per=1),
        "limit 'email': starts and per belong together, as in starts=10, per=1",
    ),
    "negative": (
        lambda: Limit("email", running=-1),
        "limit 'email': running -1 is not valid: a whole number from 0 to 1,000,000",
    ),
    "a fraction": (
        lambda: Limit("email", running=1.5),  # type: ignore[arg-type]  # the point
        "limit 'email': running 1.5 is not valid: a whole number from 0 to 1,000,000",
    ),
    "a bool": (
        lambda: Limit("email", running=True),
        "limit 'email': running True is not valid: a whole number from 0 to 1,000,000",
    ),
    "too many": (
        lambda: Limit("email", running=1_000_001),
        "limit 'email': running 1000001 is not valid: a whole number from 0 to 1,000,000",
    ),
    "no starts": (
        lambda: Limit("email", starts=0, per=1),
        "limit 'email': starts 0 is not valid: a whole number from 1 to 100,000",
    ),
    "no time": (
        lambda: Limit("email", starts=1, per=0),
        "limit 'email': per 0 is not valid: more than 0 seconds, one day at most",
    ),
    "not a time": (
        lambda: Limit("email", starts=1, per=float("nan")),
        "limit 'email': per nan is not valid: more than 0 seconds, one day at most",
    ),
    "text for a time": (
        lambda: Limit("email", starts=1, per="1s"),  # type: ignore[arg-type]  # the point
        "limit 'email': per '1s' is not valid: more than 0 seconds, one day at most",
    ),
    "two days": (
        lambda: Limit("email", starts=1, per=timedelta(days=2)),
        (
            "limit 'email': per datetime.timedelta(days=2) is not valid: more than 0 seconds, "
            "one day at most"
        ),
    ),
    "empty name": (
        lambda: Limit("", running=1),
        "limit '' is not valid: text of 1 to 200 bytes, without NUL or lone surrogates",
    ),
    "long name": (
        lambda: Limit("é" * 101, running=1),
        f"limit {'é' * 100!r} is not valid: text of 1 to 200 bytes, without NUL or lone surrogates",
    ),
    "no text": (
        lambda: Limit(7, running=1),  # type: ignore[arg-type]  # the point
        "limit '7' is not valid: text of 1 to 200 bytes, without NUL or lone surrogates",
    ),
    "NUL": (
        lambda: Limit("a\0", running=1),
        "limit 'a\\x00' is not valid: text of 1 to 200 bytes, without NUL or lone surrogates",
    ),
    "a place's name": (
        lambda: Limit("@new", running=1),
        "limit '@new' is not valid: it begins with a letter or a digit",
    ),
    "only a field": (
        lambda: Limit("{tenant}", running=1),
        "limit '{tenant}' is not valid: it begins with a letter or a digit",
    ),
    "an open brace": (
        lambda: Limit("to:{tenant", running=1),
        "limit 'to:{tenant' is not valid: braces hold the name of a field, as in {tenant}",
    ),
    "no field's name": (
        lambda: Limit("to:{1}", running=1),
        "limit 'to:{1}' is not valid: braces hold the name of a field, as in {tenant}",
    ),
    "an order's name": (
        lambda: Limit("ordered:x", running=1),
        "limit 'ordered:x': names that begin with ordered: are orders",
    ),
    "an order's policy": (
        lambda: Order("customer:{id}", on_failure="stop"),
        "ordered_by 'customer:{id}': on_failure 'stop' is not valid: hold, pass",
    ),
    "an order's key": (
        lambda: Order("{id}"),
        "ordered_by '{id}' is not valid: it begins with a letter or a digit",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_limit_that_cannot_be_is_refused(name: str) -> None:
    make, message = CASES[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message


TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "one instead of a list": (
        {"limits": Limit("email", running=1)},
        (
            "task 'send': limits Limit(name='email', running=1, starts=None, per=None) is not "
            "valid: a list of Limit(…)"
        ),
    ),
    "a name alone": (
        {"limits": ["email"]},
        "task 'send': 'email' is no limit: use Limit(name, running=…)",
    ),
    "twice": (
        {"limits": [Limit("email", running=1), Limit("email", running=2)]},
        "task 'send': limit 'email' is given twice",
    ),
    "too many": (
        {"limits": [Limit(f"l{n}", running=1) for n in range(11)]},
        "task 'send': 11 limits, and 10 are the most",
    ),
    "no key": (
        {"ordered_by": 7},
        (
            "task 'send': ordered_by 7 is not valid: a key such as \"customer:{customer_id}\", "
            "or Order(key, on_failure=…)"
        ),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_with_limits_that_cannot_be_is_refused(name: str) -> None:
    options, message = TASKS[name]
    with pytest.raises(ConfigError) as caught:

        @PgQueue("postgresql://nowhere").task(**options)
        def send() -> None: ...

    assert str(caught.value) == message


def test_a_field_that_no_job_of_the_task_has_is_refused() -> None:
    @PgQueue("postgresql://nowhere").task(limits=[Limit("to:{customer}", running=1)])
    def send(user: int) -> None: ...

    with pytest.raises(ConfigError) as caught:
        send.enqueue(user=1)
    assert str(caught.value) == (
        "task 'send': a limit names {customer}, which is no parameter of it (user), "
        "nor tenant, queue or task"
    )


def test_one_limit_has_one_rule_in_all_tasks() -> None:
    pgq = PgQueue("postgresql://nowhere")

    @pgq.task(limits=[Limit("email", running=1)])
    def first() -> None: ...

    @pgq.task(limits=[Limit("email", running=1)])
    def second() -> None: ...

    with pytest.raises(ConfigError, match="'email' has one rule in task 'first' and another"):

        @pgq.task(limits=[Limit("email", running=2)])
        def third() -> None: ...


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("email", None),
        ("tenant:{tenant}", "tenant:%"),
        ("a_b%{x}-{y}", r"a\_b\%%-%"),
    ],
)
def test_the_pattern_of_a_name_takes_its_fixed_parts_as_they_are(
    name: str, pattern: str | None
) -> None:
    assert pattern_of(name) == pattern

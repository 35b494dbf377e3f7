"""Many payloads at once are looked at as closely as one, and refused in the same words."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from pgqueue import PayloadInvalid, PgQueue
from pgqueue.tasks.task import Task


class Point(BaseModel):
    x: float = 0.0
    label: str | None = None


@dataclass
class Mark:
    weight: float | None = None


CIRCLE: dict[str, Any] = {}
CIRCLE["anything"] = CIRCLE
GOOD: list[Any] = [{}, {"number": "7"}, {"points": [{"x": 1}], "mark": None, "anything": "\\u0000"}]
BAD: list[Any] = [
    {"number": "many"},
    {"unknown": 1},
    {"points": [{"x": float("nan")}]},
    {"mark": Mark(float("inf"))},
    {"anything": {"deep": [float("-inf"), None]}},
    {"anything": "\x00"},
    {"anything": "\ud800"},
    {"anything": "x" * 1_000_001},
    {"anything": object()},
    {1: 2},
    {b"number": 1},
    CIRCLE,
    Point(),
    "text",
    None,
]


@pytest.fixture
def loose(pgq: PgQueue) -> Task[None]:
    @pgq.task
    def loose(
        number: int = 0,
        at: datetime | None = None,
        points: list[Point] = [],  # noqa: B006 - a default like any other
        mark: Mark | None = None,
        anything: Any = None,
    ) -> None: ...

    return loose


def problems(task: Task[None], rows: Any) -> list[tuple[str, str]]:
    with pytest.raises(PayloadInvalid) as refused:
        task.enqueue_many(rows)
    return refused.value.problems


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("place", [0, 700, 1_500])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
def test_a_bad_row_is_refused_in_the_same_words_wherever_it_stands(
    pgq: PgQueue, loose: Task[None], bad: Any, place: int, kind: Any
) -> None:
    many = [{"number": n} for n in range(1_500)]
    rows = kind([*many[:place], bad, *many[place:]])
    assert problems(loose, rows) == problems(loose, [bad])
    with pgq.connection() as connection:
        assert connection.execute("select count(*) from pgqueue.jobs").fetchone() == (0,)


def test_one_dict_may_be_given_again_and_again_with_other_values(
    loose: Task[None], pgq: PgQueue
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"points": [{"x": 0}]}
        for number in range(300):
            row["points"][0]["x"] = number
            yield row

    stored = [pgq.get_job(job_id).payload for job_id in loose.enqueue_many(rows())]
    assert [one["points"][0]["x"] for one in stored] == list(range(300))


def test_a_batch_of_models_takes_mappings_with_text_as_keys_only(pgq: PgQueue) -> None:
    @pgq.task(batch=10)
    def draw(points: list[Point]) -> None: ...

    for bad in ({1: 2, "x": 1.0}, Point()):
        assert "mapping" in problems(draw, [{"x": 1.0}, bad])[0][1]


def test_rows_of_every_kind_are_stored_as_one_by_one(loose: Task[None], pgq: PgQueue) -> None:
    rows = [*GOOD, UserDict({"number": 3}), {"at": datetime(2030, 1, 1)}, {"anything": None}]  # noqa: DTZ001
    ids = loose.enqueue_many(rows)
    stored = [pgq.get_job(job_id).payload for job_id in ids]
    assert stored == [json.loads(json.dumps(loose.payload(**row).payload)) for row in rows]

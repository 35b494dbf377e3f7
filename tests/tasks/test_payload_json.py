"""What comes from outside is JSON, and is read as such: also where a model is strict."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pgqueue import PayloadInvalid, PgQueue
from pgqueue.job import Json
from pgqueue.tasks.payload import Signature, signature_of


class Colour(Enum):
    RED = "red"


class Loose(BaseModel):
    at: datetime
    day: date
    hour: time
    span: timedelta
    id: uuid.UUID
    price: Decimal
    data: bytes
    colour: Colour
    pair: tuple[int, int]
    names: set[str]


class Strict(Loose):
    model_config = ConfigDict(strict=True)


DOCUMENT: dict[str, Json] = {
    "at": "2030-01-31T08:00:00Z",
    "day": "2030-01-31",
    "hour": "08:00:00",
    "span": "PT1H",
    "id": "00000000-0000-0000-0000-000000000007",
    "price": "1.10",
    "data": "plain",
    "colour": "red",
    "pair": [1, 2],
    "names": ["a"],
}
VALUES: dict[str, Any] = {
    "at": datetime(2030, 1, 31, 8, tzinfo=UTC),
    "day": date(2030, 1, 31),
    "hour": time(8),
    "span": timedelta(hours=1),
    "id": uuid.UUID(int=7),
    "price": Decimal("1.10"),
    "data": b"plain",
    "colour": Colour.RED,
    "pair": (1, 2),
    "names": {"a"},
}
MODELS = [Loose, Strict]


def of(model: type[BaseModel]) -> Signature:
    def work(item: Any) -> None: ...

    work.__annotations__["item"] = model
    return signature_of("work", work)


@pytest.mark.parametrize("model", MODELS)
def test_json_from_outside_fits_a_model_of_every_kind_of_field(model: type[BaseModel]) -> None:
    signature = of(model)
    stored = signature.payload_of_json({"item": DOCUMENT})
    assert signature.arguments(json.dumps(stored)) == {"item": model(**VALUES)}
    assert signature.payload_of_json(stored) == stored


@pytest.mark.parametrize("model", MODELS)
def test_values_from_python_fit_it_too(model: type[BaseModel]) -> None:
    signature = of(model)
    assert signature.payload((), {"item": model(**VALUES)}) == signature.payload_of_json(
        {"item": DOCUMENT}
    )


def test_a_strict_model_still_takes_no_text_for_a_time_from_python_code() -> None:
    with pytest.raises(PayloadInvalid):
        of(Strict).payload((), {"item": DOCUMENT})


@pytest.mark.parametrize("model", MODELS)
def test_a_job_enqueued_by_name_may_be_given_json(pgq: PgQueue, model: type[BaseModel]) -> None:
    def work(item: Any) -> None: ...

    work.__annotations__["item"] = model
    task = pgq.task(work)
    by_json = pgq.enqueue("work", {"item": DOCUMENT})
    assert task.signature.arguments(json.dumps(by_json.payload)) == {"item": model(**VALUES)}
    by_values = pgq.enqueue("work", {"item": model(**VALUES)})
    assert by_values.payload == by_json.payload


def test_a_strict_parameter_may_be_given_json_by_name(pgq: PgQueue) -> None:
    @pgq.task
    def work(at: Annotated[datetime, Field(strict=True)]) -> None: ...

    assert pgq.enqueue("work", {"at": "2030-01-31T08:00:00Z"}).payload == {
        "at": "2030-01-31T08:00:00Z"
    }
    assert pgq.enqueue("work", {"at": VALUES["at"]}).payload == {"at": "2030-01-31T08:00:00Z"}
    with pytest.raises(PayloadInvalid, match="at: Input should be a valid datetime"):
        pgq.enqueue("work", {"at": 5})


@pytest.mark.parametrize("model", MODELS)
def test_a_replay_may_change_json(pgq: PgQueue, database: str, model: type[BaseModel]) -> None:
    def work(item: Any) -> None: ...

    work.__annotations__["item"] = model
    pgq.task(work)
    first, second = (pgq.enqueue("work", {"item": DOCUMENT}) for _ in range(2))
    pgq.cancel(first.id, second.id)
    pgq.replay(first.id, merge={"item": {"day": "2031-01-31"}})
    pgq.replay(second.id, {"item": {**DOCUMENT, "colour": "red", "day": "2031-01-31"}})
    for job in (first, second):
        assert pgq.get_job(job.id).payload == {"item": {**job.payload["item"], "day": "2031-01-31"}}  # type: ignore[dict-item,call-overload,index]


@pytest.mark.parametrize(
    "payload", [{"item": "\x00"}, {"item": "\ud800"}, {"item": float("nan")}, {"item": 10**400}]
)
def test_what_json_cannot_hold_is_refused_by_name_too(pgq: PgQueue, payload: Any) -> None:
    @pgq.task
    def work(item: str | float) -> None: ...

    with pytest.raises(PayloadInvalid):
        pgq.enqueue("work", payload)


@pytest.mark.parametrize("model", MODELS)
def test_a_schedule_may_be_given_json(pgq: PgQueue, model: type[BaseModel]) -> None:
    def work(item: Any, window_start: datetime) -> None: ...

    work.__annotations__["item"] = model
    pgq.task(work)
    pgq.put_schedule("s", cron="0 3 * * *", task="work", payload={"item": DOCUMENT})
    (row,) = pgq.list_schedules()
    assert row["payload"]["item"]["day"] == "2030-01-31"

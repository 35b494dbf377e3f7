"""What goes into `enqueue` comes out in the handler, equal and of the same type."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, StrictInt, computed_field
from typing_extensions import TypedDict

from pgqueue import PgQueue
from pgqueue.errors import PayloadInvalid
from pgqueue.tasks.payload import signature_of
from pgqueue.tasks.task import Task


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Named(NamedTuple):
    x: int
    y: str


class Row(TypedDict):
    a: int


class Address(BaseModel):
    street: str
    since: date


class Person(BaseModel):
    id: uuid.UUID
    address: Address
    balance: Decimal = Decimal(0)


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    id: uuid.UUID
    pair: tuple[int, int]


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    side: int

    @computed_field
    def area(self) -> int:
        return self.side**2


NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
ID = uuid.UUID(int=7)
VALUES: list[tuple[Any, Any]] = [
    (datetime, NOON),
    (datetime, NOON.astimezone(ZoneInfo("Asia/Tokyo"))),
    (datetime, NOON.replace(tzinfo=None)),
    (date, date(2024, 2, 29)),
    (time, time(23, 59, 59)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (uuid.UUID, ID),
    (Decimal, Decimal("0.1000000000000000055511151231257827")),
    (int, 2**70),
    (float, 1e-300),
    (bool, True),
    (bytes, b"plain"),
    (str, "ž \U0001f600 \\u0000 ' \" \\ \n\t"),
    (int | None, None),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (list[Colour | None], [Colour.RED, None]),
    (Literal["a", "b"], "b"),
    (Point, Point(1, NOON)),
    (Named, Named(1, "y")),
    (Row, {"a": 1}),
    (Person, Person(id=ID, address=Address(street="x", since=date(2020, 1, 1)))),
    (Aliased, Aliased(userId=3)),
    (Strict, Strict(at=NOON, id=ID, pair=(1, 2))),
    (Computed, Computed(side=3)),
    (StrictInt, 5),
    (Annotated[int, Field(gt=0)], 5),
    (list[Person], [Person(id=ID, address=Address(street="x", since=date(2020, 1, 1)))]),
    (dict[str, datetime], {"a": NOON}),
    (dict[int, Decimal], {1: Decimal("1.10")}),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (datetime | int, NOON),
    (AnyUrl, AnyUrl("https://example.org/a?b=c")),
    (Path, Path("/srv/x")),
    (Any, {"a": [1, None, {"b": False}]}),
]


async def test_an_argument_of_every_kind_reaches_the_handler_as_it_was(pgq: PgQueue) -> None:
    got: dict[int, Any] = {}
    for number, (kind, value) in enumerate(VALUES):
        _keeping(pgq, number, kind, got).enqueue(value)

    await pgq.worker(burst=True, scheduler=False).run()

    for number, (kind, value) in enumerate(VALUES):
        assert number in got, f"{kind} did not reach its handler"
        assert (got[number], type(got[number])) == (value, type(value))


def _keeping(pgq: PgQueue, number: int, kind: Any, got: dict[int, Any]) -> Task[Any]:
    async def keep(value: Any) -> None:
        got[number] = value

    keep.__annotations__["value"] = kind
    return pgq.task(name=f"keep-{number}")(keep)


async def test_a_default_that_was_left_out_is_the_function_s_default_of_the_day(
    pgq: PgQueue,
) -> None:
    got: list[int] = []

    @pgq.task
    async def keep(number: int = 1) -> None:
        got.append(number)

    job = keep.enqueue()
    keep.function.__defaults__ = (2,)
    await pgq.worker(burst=True, scheduler=False).run()

    assert job.payload == {}
    assert got == [2]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    # From 1e16 on jsonb makes integers of whole numbers.
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab\\u0", max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON)
def test_any_json_survives_the_database(pgq: PgQueue, value: Any) -> None:
    def keep(value: Any) -> None: ...

    if "keep-any" not in pgq.tasks:
        pgq.task(name="keep-any")(keep)
    stored = pgq.get_job(pgq.enqueue("keep-any", {"value": value}).id)
    assert stored.payload == {"value": value}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\x00b", "holds a NUL character, which Postgres cannot store"),
        ({"a\x00": 1}, "holds a NUL character, which Postgres cannot store"),
        (float("nan"), "holds NaN or infinity, which JSON does not know"),
        ({"a": [float("-inf")]}, "holds NaN or infinity, which JSON does not know"),
        (Point(float("nan"), NOON), "holds NaN or infinity, which JSON does not know"),
        ("\ud800", "not JSON|surrogates"),
        (b"\xff", "utf-8|utf8"),
        (object(), "object"),
    ],
    ids=["nul", "nul-key", "nan", "inf", "nan-inside", "surrogate", "bytes", "object"],
)
def test_what_postgres_cannot_store_is_refused_at_the_door(
    database: str, pgq: PgQueue, value: Any, reason: str
) -> None:
    @pgq.task
    def keep(value: Any) -> None: ...

    with pytest.raises(PayloadInvalid, match=reason):
        keep.enqueue(value)
    with pgq.connection() as connection:
        assert connection.execute("select from pgqueue.jobs").fetchall() == []


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "payload of task 'add' is not valid: a: Field required"),
        ((1, 2, 3), {}, "payload of task 'add' is not valid: arguments: takes 2 positional"),
        ((1,), {"a": 2}, "payload of task 'add' is not valid: a: given twice"),
        ((1,), {"c": 2}, "payload of task 'add' is not valid: c: Extra inputs are not permitted"),
        (("x",), {}, "payload of task 'add' is not valid: a: Input should be a valid integer"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_their_place(
    args: Any, kwargs: Any, message: str
) -> None:
    def add(a: int, b: int = 0) -> None: ...

    with pytest.raises(PayloadInvalid) as refused:
        signature_of("add", add).payload(args, kwargs)
    assert str(refused.value).startswith(message)


def test_a_function_that_takes_any_keyword_keeps_them_all(pgq: PgQueue) -> None:
    @pgq.task
    def keep(**anything: Any) -> None: ...

    assert keep.enqueue(a=1, b=[2]).payload == {"a": 1, "b": [2]}

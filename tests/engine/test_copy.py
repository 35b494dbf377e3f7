"""Many jobs go in by COPY; what is stored is what one-by-one inserts would have stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import TransactionStatus
from pydantic import AfterValidator

from pgqueue import PayloadInvalid, PgQueue
from pgqueue.engine import enqueue
from proving import rows, value

STORED = (
    "select task, queue, priority, payload, tags, max_attempts, timeout, expires_at, headers, "
    "tenant, unique_key, state, attempt, run_at - scheduled_at from pgqueue.jobs where id = %s"
)
COPIED = enqueue.COPY_FROM + 50
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
TRICKY = ["\\", "\\N", "\\.", "\t", "\n", "\r\n", '"', "{", "}", ",", "null", "\\u0000", "é✓𝄞", ""]


@pytest.fixture
def take(pgq: PgQueue) -> Any:
    @pgq.task
    def take(text: str, number: float = 0.0) -> None: ...

    return take


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.sampled_from(TRICKY) | TEXTS, min_size=1, max_size=5),
    tags=st.lists((st.sampled_from(TRICKY) | TEXTS), max_size=3),
    timeout=st.none() | st.floats(0.001, 1e6),
    priority=st.integers(0, 9),
    count=st.sampled_from([5, enqueue.COPY_FROM]),
)
def test_many_jobs_are_stored_like_single_ones(
    database: str,
    take: Any,
    texts: list[str],
    tags: list[str],
    timeout: float | None,
    priority: int,
    count: int,
) -> None:
    using = take.using(
        tags=tags, timeout=timeout, priority=priority, run_at=LATER, expires_at=LATER
    )
    many = [{"text": texts[place % len(texts)]} for place in range(count)]
    ids = using.enqueue_many(many)
    for place in range(len(texts)):
        single = using.enqueue(**many[place])
        assert rows(database, STORED, [ids[place]]) == rows(database, STORED, [single.id])


LATER = datetime(2040, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)


def test_ids_come_in_the_order_of_the_rows_and_are_due_in_it(database: str, take: Any) -> None:
    ids = take.enqueue_many({"text": str(n)} for n in range(1_000))
    stored = rows(database, "select id, payload ->> 'text' from pgqueue.jobs order by run_at, id")
    assert stored == [(job_id, str(n)) for n, job_id in enumerate(ids)]


def test_ids_are_right_when_others_take_some_in_between(
    database: str, take: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = "alter sequence pgqueue.jobs_id_seq increment by 3"
    rows(database, sequence)
    ids = take.enqueue_many({"text": str(n)} for n in range(COPIED))
    stored = rows(database, "select id, payload ->> 'text' from pgqueue.jobs order by id")
    assert stored == [(job_id, str(n)) for n, job_id in enumerate(ids)]


def test_copied_jobs_belong_to_the_callers_transaction(database: str, take: Any) -> None:
    with psycopg.connect(database) as connection:
        take.using(connection=connection).enqueue_many([{"text": "x"}] * COPIED)
        connection.rollback()
        assert value(database, "select count(*) from pgqueue.jobs") == 0
        take.using(connection=connection).enqueue_many([{"text": "x"}] * COPIED)
        connection.commit()
    assert value(database, "select count(*) from pgqueue.jobs") == COPIED


def test_a_bad_row_leaves_the_callers_transaction_and_connection_as_they_were(
    database: str, take: Any
) -> None:
    many = [{"text": "ok"}] * 1_000 + [{"text": 7}]
    with psycopg.connect(database) as connection:
        take.using(connection=connection).enqueue(text="before")
        with pytest.raises(PayloadInvalid):
            take.using(connection=connection).enqueue_many(many)
        take.using(connection=connection).enqueue(text="after")
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(PayloadInvalid):
            take.using(connection=connection).enqueue_many(many)
        take.using(connection=connection).enqueue(text="later")
    stored = rows(database, "select payload ->> 'text' from pgqueue.jobs order by id")
    assert stored == [("before",), ("after",), ("later",)]


@pytest.mark.parametrize("mode", [{"autocommit": True}, {"autocommit": False}], ids=str)
def test_what_follows_on_the_callers_connection_is_as_durable_as_before(
    database: str, take: Any, mode: Any
) -> None:
    with psycopg.connect(database, **mode) as connection:
        take.using(connection=connection).enqueue_many([{"text": "x"}] * COPIED)
        assert connection.execute("show synchronous_commit").fetchone() == ("on",)


def test_a_connection_with_another_encoding_copies_the_same_text(database: str, take: Any) -> None:
    with psycopg.connect(database, client_encoding="latin1") as connection:
        take.using(connection=connection).enqueue_many([{"text": "é✓𝄞"}] * COPIED)
    stored = rows(database, "select distinct payload ->> 'text' from pgqueue.jobs")
    assert stored == [("é✓𝄞",)]


def test_a_connection_in_pipeline_mode_takes_many_jobs_too(database: str, take: Any) -> None:
    with psycopg.connect(database) as connection, connection.pipeline():
        ids = take.using(connection=connection).enqueue_many([{"text": "x"}] * COPIED)
    assert value(database, "select count(*) from pgqueue.jobs where id = any(%s)", [ids]) == COPIED


async def test_async_code_copies_as_well(database: str, take: Any) -> None:
    ids = await take.aenqueue_many([{"text": str(n)} for n in range(COPIED)])
    assert rows(database, "select id from pgqueue.jobs order by id") == [(one,) for one in ids]


@pytest.mark.parametrize("bad", [float("nan"), "\x00", "\ud800", "x" * 1_000_001])
def test_one_bad_row_among_many_and_nothing_is_stored(database: str, take: Any, bad: Any) -> None:
    wrong = {"text": "ok", "number": bad} if isinstance(bad, float) else {"text": bad}
    with pytest.raises(PayloadInvalid):
        take.enqueue_many([{"text": "ok"}] * COPIED + [wrong])
    assert value(database, "select count(*) from pgqueue.jobs") == 0


def test_a_delay_counts_from_the_databases_clock(database: str, take: Any) -> None:
    take.using(delay=timedelta(hours=1)).enqueue_many([{"text": "x"}] * COPIED)
    late = "select bool_and(run_at between now() + interval '59 min' and now() + interval '61 min')"
    assert value(database, f"{late} from pgqueue.jobs") is True


_validators: list[Callable[[], object]] = []


def _seen_by_validators(text: str) -> str:
    for validator in _validators:
        validator()
    return text


def _validated(text: Annotated[str, AfterValidator(_seen_by_validators)]) -> None: ...


@pytest.fixture
def validated(pgq: PgQueue) -> Iterator[Any]:
    yield pgq.task(name="validated")(_validated)
    _validators.clear()


def test_a_validator_may_use_the_connection_that_the_jobs_are_enqueued_on(
    database: str, validated: Any
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        _validators.append(lambda: connection.execute("select 1"))
        ids = validated.using(connection=connection).enqueue_many([{"text": "x"}] * COPIED)
    assert value(database, "select count(*) from pgqueue.jobs where id = any(%s)", [ids]) == COPIED


async def test_validators_have_seen_all_before_an_async_connection_is_busy_with_them(
    database: str, validated: Any
) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        statuses = []
        _validators.append(lambda: statuses.append(connection.info.transaction_status))
        await validated.using(connection=connection).aenqueue_many([{"text": "x"}] * COPIED)
    assert statuses == [TransactionStatus.IDLE] * COPIED

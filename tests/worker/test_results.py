"""A result that is too large is refused before it costs the event loop seconds."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pgqueue import PgQueue
from pgqueue.job import NotStorable
from pgqueue.worker import results
from pgqueue.worker.results import RESULT_LIMIT, completed, json_of, least_size
from proving import value

JOB: Any = SimpleNamespace(id=1, lease=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


class Report(BaseModel):
    rows: list[dict[str, Any]]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": "n" * 80} for n in range(count)]


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the whole result was made JSON")


@pytest.mark.parametrize(
    "result",
    ["x" * 2_000_000, list(range(2_000_000)), rows(20_000), {"deep": [{"rows": rows(20_000)}]}],
    ids=["text", "numbers", "rows", "deep"],
)
def test_what_is_sure_to_be_too_large_is_not_looked_through(
    monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    monkeypatch.setattr(results, "to_jsonable_python", never)
    with pytest.raises(NotStorable, match="more than 1,000,000 bytes, which is the most"):
        completed(JOB, result)


@pytest.mark.parametrize("result", [Report(rows=rows(20_000)), {"at": datetime.now(UTC), "r": [
    Report(rows=rows(2_000)) for _ in range(10)]}], ids=["model", "models"])  # fmt: skip
def test_models_are_measured_once_they_are_plain(
    monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    monkeypatch.setattr(results, "storable_json", never)
    with pytest.raises(NotStorable, match="more than 1,000,000 bytes"):
        completed(JOB, result)


def test_as_much_as_is_allowed_is_kept() -> None:
    ended = completed(JOB, ["x" * (RESULT_LIMIT - 4)])
    assert ended.result is not None
    assert len(ended.result) == RESULT_LIMIT
    with pytest.raises(NotStorable, match="1,000,001 bytes, and 1,000,000 is the most"):
        completed(JOB, ["x" * (RESULT_LIMIT - 3)])


def test_what_holds_itself_is_no_json() -> None:
    ring: list[Any] = []
    ring.append({"ring": ring})
    with pytest.raises(NotStorable, match="Circular reference"):
        completed(JOB, ring)


@given(JSON)
def test_the_estimate_is_never_more_than_the_size(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    least, is_plain = least_size(document, RESULT_LIMIT)
    assert least <= len(text.encode("utf-8", "surrogatepass"))
    assert is_plain


async def test_a_job_whose_result_is_too_large_fails_and_says_so(
    database: str, pgq: PgQueue
) -> None:
    @pgq.task
    async def hoard() -> list[int]:
        return list(range(2_000_000))

    job_id = hoard.enqueue().id
    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    reason, message = value(
        database,
        "select array[reason, message] from pgqueue.dead_letters where id = %s",
        [job_id],
    )
    assert (reason, message) == ("bad-result", "more than 1,000,000 bytes, which is the most")


async def test_a_forgotten_await_is_named() -> None:
    async def forgotten() -> None: ...

    coroutine = forgotten()
    with pytest.raises(NotStorable, match="not JSON but a coroutine: await it"):
        json_of(coroutine)
    coroutine.close()

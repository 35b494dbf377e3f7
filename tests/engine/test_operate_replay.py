"""Finished jobs run again with other payloads, under their ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endings import end
from pgqueue import (
    ConfigError,
    JobFilter,
    JobNotFound,
    PayloadInvalid,
    PgQueue,
    TaskUnknown,
    WrongState,
)
from pgqueue.engine.retry_jobs import merged
from pgqueue.errors import UniqueKeyTaken
from pgqueue.tasks.task import Task
from proving import rows, states

AUDIT = "select who, source, action, target, details from pgqueue.audit_log order by id"


@pytest.fixture
def add(pgq: PgQueue) -> Task[int]:
    @pgq.task(name="add")
    def add(a: int, b: int = 2) -> int:
        return a + b

    return add


def test_a_completed_job_is_replayed_under_its_id(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    job = add.enqueue(a=1)
    end(database, job.id, state="completed")

    pgq.replay(job.id)

    assert (pgq.get_job(job.id).state, pgq.get_job(job.id).payload) == ("queued", {"a": 1})
    assert rows(database, AUDIT)[0][2:] == (
        "replay", f"job {job.id}", {"ids": [job.id], "changed": []},
    )  # fmt: skip


def test_a_replay_takes_another_payload_or_changes_to_the_old_one(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    whole, part = add.enqueue_many([{"a": 1, "b": 3}, {"a": 1, "b": 3}])
    end(database, whole, part)

    pgq.replay(whole, {"a": "7"})
    pgq.replay(part, merge={"a": 8, "b": None})

    assert pgq.get_job(whole).payload == {"a": 7}
    assert pgq.get_job(part).payload == {"a": 8}
    assert [row[4]["changed"] for row in rows(database, AUDIT)] == [["a", "b"], ["a", "b"]]


def test_many_jobs_are_replayed_with_changes_each_fitting_its_task(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    ids = add.enqueue_many({"a": n} for n in range(600))
    odd = add.enqueue(a=1).id
    rows(database, 'update pgqueue.jobs set payload = \'{"a": "x"}\' where id = %s', [odd])
    end(database, *ids, odd, state="completed")
    done_ones = JobFilter(states=("completed",))

    assert pgq.preview_replay(JobFilter()).count == 0
    assert pgq.preview_replay(done_ones).count == 601
    done = pgq.replay_many(done_ones, merge={"b": 7})

    assert list(done.retried) == ids
    assert list(done.refused) == [odd]
    assert "a: Input should be a valid integer" in done.refused[odd]
    assert pgq.get_job(ids[599]).payload == {"a": 599, "b": 7}
    assert states(database) == {"queued": 600, "completed": 1}
    assert {row[2] for row in rows(database, AUDIT)} == {"replay"}


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        ({"payload": {"a": "x"}}, PayloadInvalid),
        ({"payload": {}}, PayloadInvalid),
        ({"payload": {"a": 1, "c": 1}}, PayloadInvalid),
        ({"payload": [1]}, PayloadInvalid),
        ({"payload": {1: 2}}, PayloadInvalid),
        ({"merge": {"a": None}}, PayloadInvalid),
        ({"merge": [1]}, PayloadInvalid),
        ({"merge": "x"}, PayloadInvalid),
        ({"payload": {"a": 1}, "merge": {"a": 1}}, ConfigError),
    ],
)
def test_a_payload_that_does_not_fit_the_task_changes_nothing(
    pgq: PgQueue, database: str, add: Task[int], edit: Any, error: Any
) -> None:
    job = add.enqueue(a=1)
    end(database, job.id)

    with pytest.raises(error):
        pgq.replay(job.id, **edit)
    assert states(database) == {"failed": 1}
    assert rows(database, AUDIT) == []


def test_what_cannot_be_replayed_is_told_by_its_name(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    live = add.using(unique_key="k").enqueue(a=1)
    with pytest.raises(WrongState, match=f"job {live.id} is queued: only finished jobs"):
        pgq.replay(live.id)
    with pytest.raises(JobNotFound):
        pgq.replay(10**15)
    end(database, live.id)
    holder = add.using(unique_key="k").enqueue(a=1)
    with pytest.raises(UniqueKeyTaken, match="its unique key is taken by job") as taken:
        pgq.replay(live.id)
    assert taken.value.job_id == holder.id

    rows(database, "update pgqueue.finished_jobs set task = 'gone', unique_key = null")
    with pytest.raises(TaskUnknown):
        pgq.replay(live.id, {"a": 1})
    pgq.replay(live.id)
    assert pgq.get_job(live.id).task == "gone"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(old=JSON, patch=JSON)
def test_merging_twice_is_merging_once_and_leaves_no_null_of_the_patch(
    old: Any, patch: Any
) -> None:
    once = merged(old, patch)

    assert merged(once, patch) == once
    if isinstance(patch, dict):
        assert all(name not in once for name, change in patch.items() if change is None)


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396_come_out_as_printed(old: Any, patch: Any, new: Any) -> None:
    assert merged(old, patch) == new


async def test_async_code_replays_many_and_is_told_how_many(
    pgq: PgQueue, database: str, add: Task[int]
) -> None:
    ids = add.enqueue_many({"a": n} for n in range(3))
    end(database, *ids, state="completed")
    done_ones = JobFilter(states=("completed",))
    assert (await pgq.apreview_replay(done_ones)).count == 3
    assert list((await pgq.areplay_many(done_ones, merge={"b": 7})).retried) == ids
    assert pgq.get_job(ids[2]).payload == {"a": 2, "b": 7}
    await pgq.pools.aclose()

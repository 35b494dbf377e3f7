"""Workflows as users meet them: run by workers, part of transactions, asked about."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from endings import end, worker
from pgqueue import (
    Job,
    Limit,
    Parents,
    PgQueue,
)
from pgqueue.db.run import run
from pgqueue.engine.sweep import sweep
from proving import rows, until, value
from workflows import apart
from workflows.flows import job, outcome, passed, states


async def work(pgq: PgQueue) -> None:
    """Until nothing is left that is due."""
    await pgq.worker(burst=True, concurrency=4).run()


# -- results --------------------------------------------------------------------


async def test_a_child_is_handed_what_its_parents_gave(pgq: PgQueue) -> None:
    @pgq.task
    async def number(n: int) -> int:
        return n

    @pgq.task
    def add(parents: Parents[int], plus: int) -> dict[str, int]:
        return {"sum": sum(parents.values()) + plus, "b": parents["b"]}

    @pgq.task
    def look(parents: Parents) -> list[Any]:
        return [dict(parents), parents.read("sum", dict[str, int]), list(parents.outcomes.items())]

    wf = pgq.workflow("sum")
    wf.add("a", number.payload(n=1))
    wf.add("b", number.payload(n=2))
    wf.add("sum", add.payload(plus=10), after=["a", "b"])
    last = wf.add("look", look.payload(), after="sum")
    made = wf.enqueue()
    await work(pgq)
    result = await pgq.get_job(made.jobs[last.name]).aresult(timeout=5)
    given = {"sum": 13, "b": 2}
    assert result == [{"sum": given}, given, [["sum", "completed"]]]


async def test_results_are_validated_like_arguments(pgq: PgQueue) -> None:
    @pgq.task
    async def day() -> str:
        return "2026-02-03"

    @pgq.task
    async def follow(parents: Parents[date]) -> str:
        return (parents["day"] + timedelta(days=1)).isoformat()

    wf = pgq.workflow("days")
    wf.add("day", day.payload())
    wf.add("next", follow.payload(), after="day")
    made = wf.enqueue()
    await work(pgq)
    assert await pgq.get_job(made.jobs["next"]).aresult(timeout=5) == "2026-02-04"


async def test_a_child_that_ignores_failures_sees_who_failed(pgq: PgQueue) -> None:
    @pgq.task
    async def part(n: int) -> int:
        if n == 1:
            raise ValueError("not this one")
        return n * 10

    @pgq.task
    async def gather(parents: Parents[int]) -> dict[str, Any]:
        with pytest.raises(KeyError, match=r"parent 'part\[1\]' has no result: it is failed"):
            _ = parents["part[1]"]
        with pytest.raises(KeyError, match=r"no parent is named 'prat'; the first are 'part\[0\]'"):
            _ = parents["prat"]
        return {"given": parents.group("part"), "outcomes": dict(parents.outcomes)}

    wf = pgq.workflow("parts")
    group = wf.group("part", [part.payload(n=n) for n in range(3)], callback=gather.payload())
    assert group.callback is not None
    made = wf.enqueue()
    await work(pgq)
    assert await pgq.get_job(made.jobs[group.callback.name]).aresult(timeout=5) == {
        "given": [0, 20],
        "outcomes": {"part[0]": "completed", "part[1]": "failed", "part[2]": "completed"},
    }


async def test_a_handler_in_a_process_of_its_own_is_handed_them_too(pgq: PgQueue) -> None:
    pytest.importorskip("pebble", reason='isolation="process" needs the extra `process`')

    @pgq.task
    async def number(n: int) -> int:
        return n

    total = pgq.task(isolation="process")(apart.total_apart)
    wf = pgq.workflow("apart")
    wf.add("a", number.payload(n=1))
    wf.add("b", number.payload(n=2))
    wf.add("sum", total.payload(), after=["a", "b"])
    made = wf.enqueue()
    await work(pgq)
    found, pid = await pgq.get_job(made.jobs["sum"]).aresult(timeout=5)
    assert found == 3
    assert pid != os.getpid()


async def test_a_job_without_parents_is_handed_none(pgq: PgQueue) -> None:
    @pgq.task
    async def count(parents: Parents) -> int:
        return len(parents)

    alone = await count.aenqueue()
    await work(pgq)
    assert await alone.aresult(timeout=5) == 0


async def test_results_are_there_although_retention_has_dropped_the_parent(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    async def number() -> int:
        return 7

    @pgq.task
    async def take(parents: Parents[int]) -> int:
        return parents["a"]

    wf = pgq.workflow("late")
    wf.add("a", number.payload())
    wf.add("b", take.using(delay=3600).payload(), after="a")
    made = wf.enqueue()
    await work(pgq)
    rows(database, "delete from pgqueue.finished_jobs")
    pgq.retry(made.jobs["b"])
    await work(pgq)
    assert await pgq.get_job(made.jobs["b"]).aresult(timeout=5) == 7


# -- transactions -----------------------------------------------------------------


def test_a_workflow_is_part_of_the_callers_transaction(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("order")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    with psycopg.connect(database) as connection:
        wf.enqueue(connection=connection)
        connection.rollback()
        assert pgq.list_workflows() == []
        made = wf.enqueue(connection=connection)
        assert pgq.list_workflows() == []
        connection.commit()
    assert states(database, made) == {"a": "queued", "b": "waiting"}


async def test_the_async_twins_do_the_same(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("async")
    wf.add("a", job())
    async with await psycopg.AsyncConnection.connect(database) as connection:
        made = await wf.aenqueue(connection=connection)
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    assert (await pgq.ashow_workflow(made.id))["state"] == "failed"
    assert (await pgq.aretry_workflow(made.id)).retried == (made.jobs["a"],)
    assert [row["state"] for row in await pgq.alist_workflows(name="async")] == ["running"]
    assert (await pgq.acancel_workflow(made.id)).ended == (made.jobs["a"],)
    assert (await pgq.arerun_workflow(made.id, "a")).retried == (made.jobs["a"],)


def test_an_autocommit_connection_gets_all_or_nothing(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("whole")
    wf.add("a", replace(job(), tenant="acme"))
    with psycopg.connect(database, autocommit=True) as connection:
        made = wf.enqueue(connection=connection)
    assert outcome(database, made) == "running"


# -- see ----------------------------------------------------------------------------


def test_why_names_the_parents_that_a_job_waits_for(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("why")
    group = wf.group("part", [job() for _ in range(12)])
    wf.add("last", job(), after=group)
    made = wf.enqueue()
    worker(database, tasks=["noop"])
    end(database, made.jobs["part[0]"], state="completed")
    passed(pgq)
    (cause,) = pgq.why(made.jobs["last"])
    assert cause.cause == "waiting"
    first = ", ".join(f"part[{n}] (job {made.jobs[f'part[{n}]']}, queued)" for n in range(1, 11))
    assert cause.message == (
        f"it waits for 11 of its parents of workflow {made.id}: {first} and 1 more"
    )
    end(database, *(made.jobs[f"part[{n}]"] for n in range(1, 12)), state="completed")
    (cause,) = pgq.why(made.jobs["last"])
    assert "part[1] (job 2, ended just now)" in cause.message


def test_workflows_are_listed_newest_first(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("one")
    wf.add("a", job())
    first, second = wf.enqueue(), wf.enqueue()
    end(database, first.jobs["a"], state="completed")
    passed(pgq)
    assert [row["id"] for row in pgq.list_workflows()] == [second.id, first.id]
    assert [row["id"] for row in pgq.list_workflows(state="completed")] == [first.id]
    assert [row["id"] for row in pgq.list_workflows(before=second.id)] == [first.id]
    assert pgq.list_workflows(name="two") == []
    (row,) = pgq.list_workflows(limit=1)
    assert (row["nodes"], row["queued"], row["finished_at"]) == (1, 1, None)


def test_old_workflows_are_swept_with_all_that_belongs_to_them(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("old")
    wf.chain("c", [job(), job()])
    old, young = wf.enqueue(), wf.enqueue()
    for made in (old, young):
        end(database, *made.jobs.values(), state="completed")
    passed(pgq)
    past = "update pgqueue.workflows set finished_at = now() - interval '1 year' where id = %s"
    rows(database, past, [old.id])
    with pgq.pools.connection() as connection:
        assert run(connection, sweep(pgq.sql)) == 1
    assert [row["id"] for row in pgq.list_workflows()] == [young.id]
    assert value(database, "select count(*) from pgqueue.workflow_nodes") == 2
    assert value(database, "select count(*) from pgqueue.job_dependencies") == 1


# -- beside workers ------------------------------------------------------------------


async def test_the_worker_that_ends_a_parent_lets_the_child_go_at_once(
    pgq: PgQueue, database: str
) -> None:
    """Not by the chore: that is put off for an hour."""
    rows(database, "update pgqueue.chores set due_at = now() + interval '1 hour'")

    @pgq.task
    async def node() -> None: ...

    wf = pgq.workflow("soon")
    wf.chain("step", [node.payload() for _ in range(10)])
    made = wf.enqueue()
    running = pgq.worker()
    working = asyncio.create_task(running.run())
    await asyncio.to_thread(until, lambda: outcome(database, made) == "completed")
    running.stop()
    await working


async def test_members_of_a_batch_let_their_children_go_at_once(
    pgq: PgQueue, database: str
) -> None:
    rows(database, "update pgqueue.chores set due_at = now() + interval '1 hour'")

    @pgq.task(batch=10)
    async def many(jobs: list[Job]) -> None: ...

    @pgq.task
    async def one() -> None: ...

    wf = pgq.workflow("batches")
    group = wf.group("part", [many.payload() for _ in range(40)])
    wf.add("last", one.payload(), after=group)
    made = wf.enqueue()
    running = pgq.worker(concurrency=2)
    working = asyncio.create_task(running.run())
    await asyncio.to_thread(until, lambda: outcome(database, made) == "completed")
    running.stop()
    await working


async def test_the_chore_makes_up_for_a_worker_that_died_before_its_pass(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    async def node() -> None: ...

    wf = pgq.workflow("late")
    wf.chain("step", [node.payload() for _ in range(3)])
    made = wf.enqueue()
    end(database, made.jobs["step[0]"], state="completed")
    running = pgq.worker()
    working = asyncio.create_task(running.run())
    await asyncio.to_thread(until, lambda: outcome(database, made) == "completed")
    running.stop()
    await working


def test_a_child_with_limits_is_blocked_when_its_parents_are_done(
    pgq: PgQueue, database: str
) -> None:
    rows(database, "insert into pgqueue.task_limits (task, names) values ('noop', '{email}')")
    wf = pgq.workflow("limited")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    made = wf.enqueue()
    assert states(database, made) == {"a": "blocked", "b": "waiting"}
    end(database, made.jobs["a"], state="completed")
    passed(pgq)
    assert states(database, made)["b"] == "blocked"
    assert value(database, "select limits from pgqueue.jobs") == ["email"]


def test_limits_that_code_declares_hold_in_a_workflow_too(pgq: PgQueue, database: str) -> None:
    """Before any worker has stored what is declared."""

    @pgq.task(limits=[Limit("of:{tenant}", running=1)])
    def send() -> None: ...

    wf = pgq.workflow("limited")
    wf.add("a", send.using(tenant="acme").payload())
    made = wf.enqueue()
    assert states(database, made) == {"a": "blocked"}
    assert value(database, "select limits from pgqueue.jobs") == ["of:acme"]

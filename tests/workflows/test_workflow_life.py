"""Workflows as users meet them: run by workers, added to, cancelled, run again, asked about."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from endings import end, worker
from pgqueue import (
    Job,
    Parents,
    PgQueue,
    Retry,
    Workflow,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowNotFound,
    WrongState,
)
from pgqueue.db.run import run
from pgqueue.engine.sweep import sweep
from pgqueue.events import WorkflowFinished
from proving import Recorder, rows, until, value
from workflows.flows import job, outcome, parents_of, passed, states


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


# -- more, from inside ---------------------------------------------------------------


async def test_a_handler_adds_jobs_that_others_wait_for(pgq: PgQueue) -> None:
    @pgq.task
    async def part(n: int) -> int:
        return n

    @pgq.task
    async def split(job: Job) -> None:
        wf = pgq.workflow_of(job)
        wf.group("part", [part.payload(n=n) for n in range(5)], before="sum")
        await wf.aenqueue()

    @pgq.task
    async def total(parents: Parents[int | None]) -> int:
        return sum(parents.group("part"))  # type: ignore[arg-type]

    wf = pgq.workflow("dynamic")
    wf.add("split", split.payload())
    wf.add("sum", total.payload(), after="split")
    made = wf.enqueue()
    await work(pgq)
    assert await pgq.get_job(made.jobs["sum"]).aresult(timeout=5) == 10
    shown = pgq.show_workflow(made.id)
    assert (shown["state"], shown["nodes"]) == ("completed", 7)


async def test_a_child_that_is_added_later_gets_the_result_of_a_parent_that_had_none_then(
    pgq: PgQueue,
) -> None:
    @pgq.task
    async def number() -> int:
        return 7

    @pgq.task
    async def take(parents: Parents[int]) -> int:
        return parents["a"]

    wf = pgq.workflow("later")
    wf.add("a", number.payload())
    wf.add("open", number.using(queue="nobody").payload())
    made = wf.enqueue()
    await pgq.worker(burst=True, queues=["default"]).run()
    more = pgq.workflow_of(made.id)
    more.add("b", take.payload(), after="a")
    late = more.enqueue()
    await pgq.worker(burst=True, queues=["default"]).run()
    assert await pgq.get_job(late.jobs["b"]).aresult(timeout=5) == 7


async def test_a_handler_that_is_tried_again_adds_its_jobs_once(pgq: PgQueue) -> None:
    @pgq.task
    async def part() -> None: ...

    @pgq.task(retry=Retry(attempts=3, delays=[0]))
    async def split(job: Job) -> None:
        wf = pgq.workflow_of(job)
        wf.add("part", part.payload(), after="split")
        await wf.aenqueue()
        if job.attempt < 3:
            raise ValueError("after it was added")

    wf = pgq.workflow("again")
    wf.add("split", split.payload())
    made = wf.enqueue()
    await work(pgq)
    shown = pgq.show_workflow(made.id)
    assert [(node["name"], node["state"]) for node in shown["graph"]] == [
        ("split", "completed"),
        ("part", "completed"),
    ]


async def test_what_a_transactional_handler_adds_is_rolled_back_with_it(pgq: PgQueue) -> None:
    @pgq.task
    def split(job: Job, connection: psycopg.Connection[Any]) -> None:
        wf = pgq.workflow_of(job)
        wf.add("part", globals()["job"]())
        wf.enqueue(connection=connection)
        raise ValueError("no")

    wf = pgq.workflow("rolled-back")
    wf.add("split", split.payload())
    made = wf.enqueue()
    await work(pgq)
    assert pgq.show_workflow(made.id)["nodes"] == 1


def test_added_nodes_may_come_after_ended_ones(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("open")
    wf.add("a", job())
    wf.add("b", job())
    wf.group("g", [job(), job()])
    made = wf.enqueue()
    end(database, made.jobs["a"], state="completed")
    end(database, made.jobs["b"], state="failed")
    passed(pgq)
    more = pgq.workflow_of(made.id)
    more.add("after-a", job(), after="a")
    more.add("after-b", job(), after="b")
    more.add("after-g", job(), after="g")
    more.add("after-new", job(), after="after-a")
    more.enqueue()
    found = states(database, made)
    assert [found[name] for name in ("after-a", "after-b", "after-g", "after-new")] == [
        "queued", "cancelled", "waiting", "waiting",
    ]  # fmt: skip
    assert parents_of(pgq.show_workflow(made.id)["graph"])["after-g"] == ["g[0]", "g[1]"]


def test_what_cannot_be_added_is_refused_with_its_error(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("open")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    wf.add("c", job(), after="b")
    made = wf.enqueue()

    def refused(kind: type[Exception], **options: Any) -> str:
        more = pgq.workflow_of(made.id)
        more.add("new", job(), **options)
        with pytest.raises(kind) as error:
            more.enqueue()
        return str(error.value)

    said = refused(WorkflowInvalid, after="nobody")
    assert said == "node 'new' comes after 'nobody', which does not exist: the nodes are 'new'"
    said = refused(WorkflowInvalid, before="nobody")
    assert said == "node 'new' comes before 'nobody', which does not exist"
    said = refused(WorkflowInvalid, after="c", before="b")
    assert said == "the workflow goes in a circle: 'c' comes after what is to follow it"
    said = refused(WrongState, before="a")
    assert said == (
        f"job {made.jobs['a']} is no longer waiting: node 'a' gets a further parent only while it "
        "waits for one"
    )
    assert len(states(database, made)) == 3
    pgq.cancel_workflow(made.id)
    said = refused(WorkflowEnded)
    assert said == (
        f"workflow {made.id} was cancelled: `pgq workflows retry {made.id}` runs again what did "
        "not complete"
    )
    with pytest.raises(WorkflowNotFound):
        Workflow("x", pgq, 99).enqueue()
    with pytest.raises(WorkflowNotFound, match="a workflow of job 77 does not exist"):
        pgq.workflow_of(replace(pgq.get_job(made.jobs["a"]), id=77, workflow_id=None))


def test_two_new_nodes_before_each_other_are_refused(pgq: PgQueue) -> None:
    wf = pgq.workflow("open")
    wf.add("a", job())
    more = pgq.workflow_of(wf.enqueue().id)
    more.add("x", job())
    more.add("y", job(), before="x")
    with pytest.raises(WorkflowInvalid, match="which is new, too: say that 'x' comes after 'y'"):
        more.enqueue()


# -- cancel and run again -------------------------------------------------------------


async def test_a_cancelled_workflow_stops_what_runs_and_what_waits(
    pgq: PgQueue, recorder: Recorder
) -> None:
    started = asyncio.Event()

    @pgq.task
    async def sleeper() -> None:
        started.set()
        await asyncio.sleep(60)

    wf = pgq.workflow("stop")
    wf.add("a", sleeper.payload())
    wf.add("b", sleeper.payload(), after="a", parent_cancelled="ignore")
    made = wf.enqueue()
    working = asyncio.create_task(pgq.worker(burst=True).run())
    await started.wait()
    cancelled = await pgq.acancel_workflow(made.id)
    assert (cancelled.marked, cancelled.ended) == ((made.jobs["a"],), (made.jobs["b"],))
    await working
    assert pgq.show_workflow(made.id)["state"] == "cancelled"
    (finished,) = recorder.of(WorkflowFinished)
    assert finished == WorkflowFinished(made.id, "cancelled")
    with pytest.raises(WorkflowEnded):
        pgq.cancel_workflow(made.id)
    with pytest.raises(WorkflowNotFound):
        pgq.cancel_workflow(99)


def test_nodes_that_are_added_while_a_workflow_is_cancelled_are_cancelled_too(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("stop")
    wf.add("a", job())
    made = wf.enqueue()
    with psycopg.connect(database) as connection:
        more = pgq.workflow_of(made.id)
        more.add("b", job(), after="a")
        more.add("c", job())
        more.enqueue(connection=connection)
        pgq.cancel_workflow(made.id)
    passed(pgq)
    assert set(states(database, made).values()) == {"cancelled"}
    assert outcome(database, made) == "cancelled"


async def test_a_retried_workflow_goes_on_from_the_node_that_failed(
    pgq: PgQueue, database: str
) -> None:
    mended = False
    ran: list[str] = []

    @pgq.task
    async def node(name: str) -> str:
        ran.append(name)
        if name == "c" and not mended:
            raise ValueError("not yet")
        return name

    wf = pgq.workflow("mend")
    for name, after in (("a", ""), ("b", "a"), ("c", "a"), ("d", "bc"), ("e", "d")):
        wf.add(name, node.payload(name=name), after=list(after))
    made = wf.enqueue()
    await work(pgq)
    assert states(database, made) == {
        "a": "completed", "b": "completed", "c": "failed", "d": "cancelled", "e": "cancelled",
    }  # fmt: skip
    mended = True
    retried = pgq.retry_workflow(made.id)
    assert retried.retried == tuple(made.jobs[name] for name in "cde")
    assert states(database, made) == {
        "a": "completed", "b": "completed", "c": "queued", "d": "waiting", "e": "waiting",
    }  # fmt: skip
    await work(pgq)
    assert outcome(database, made) == "completed"
    assert sorted(ran) == ["a", "b", "c", "c", "d", "e"]
    assert pgq.retry_workflow(made.id).retried == ()


async def test_a_part_of_a_workflow_runs_again_with_all_that_follows(pgq: PgQueue) -> None:
    ran: list[str] = []

    @pgq.task
    async def node(name: str) -> int:
        ran.append(name)
        return len(ran)

    wf = pgq.workflow("again")
    for name, after in (("a", ""), ("b", "a"), ("c", "a"), ("d", "bc"), ("e", "d")):
        wf.add(name, node.payload(name=name), after=list(after))
    made = wf.enqueue()
    await work(pgq)
    ran.clear()
    retried = pgq.rerun_workflow(made.id, "c")
    assert retried.retried == tuple(made.jobs[name] for name in "cde")
    with pytest.raises(WrongState, match="is queued: it comes after what is to run again"):
        pgq.rerun_workflow(made.id, "a")
    await work(pgq)
    assert ran == ["c", "d", "e"]
    assert pgq.show_workflow(made.id)["state"] == "completed"
    with pytest.raises(WorkflowInvalid, match=f"workflow {made.id} has no node 'x'"):
        pgq.rerun_workflow(made.id, "x")
    with pytest.raises(WorkflowNotFound):
        pgq.rerun_workflow(99, "x")


def test_what_retention_has_dropped_is_not_run_again_and_told(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("dropped")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    rows(database, "delete from pgqueue.finished_jobs where id = %s", [made.jobs["a"]])
    retried = pgq.retry_workflow(made.id)
    assert (retried.retried, retried.missing) == ((made.jobs["b"],), (made.jobs["a"],))
    # Its parent is over for good, and it is run again all the same: somebody asked for it.
    assert states(database, made) == {"a": "failed", "b": "queued"}


def test_each_deed_stands_in_the_audit_log(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("audit")
    wf.add("a", job())
    made = wf.enqueue()
    pgq.cancel_workflow(made.id)
    pgq.retry_workflow(made.id)
    end(database, made.jobs["a"], state="completed")
    passed(pgq)
    pgq.rerun_workflow(made.id, "a")
    found = rows(database, "select action, target from pgqueue.audit_log order by id")
    name = f"job {made.jobs['a']}"
    assert found == [
        ("cancel", f"workflow {made.id}"),
        ("cancel", name),
        ("retry-workflow", name),
        ("rerun-workflow", name),
    ]


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

"""Workflows are added to from inside, cancelled, and run again, whole or in part."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from endings import end
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
from pgqueue.events import WorkflowFinished
from proving import Recorder, rows
from workflows.flows import job, outcome, parents_of, passed, states


async def work(pgq: PgQueue) -> None:
    """Until nothing is left that is due."""
    await pgq.worker(burst=True, concurrency=4).run()


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
    with pytest.raises(WorkflowNotFound, match="job 77 belongs to no workflow"):
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

"""Passes that meet an operator's retry, adder or cancel: two connections, held where they meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import pytest

from endings import end, run_on
from pgqueue import JobFilter, Operator, PgQueue, WorkflowBusy, WorkflowInvalid
from pgqueue.db.run import Batch, Steps, _answer
from pgqueue.engine import workflow_deeds
from pgqueue.engine.cancel import cancel_jobs
from pgqueue.engine.retry_jobs import retry_jobs
from proving import Clock, blocked_on, rows, until, value
from workflows.flows import job, outcome, passed, states

T = TypeVar("T")
ADA = Operator("ada")


def _within(connection: psycopg.Connection, steps: Steps[T]) -> T:
    """The verb in the connection's transaction, which stays open, batches included."""
    try:
        asked = next(steps)
        while True:
            if isinstance(asked, Batch):
                asked = steps.send([_answer(connection, one) for one in asked.statements])
            else:
                asked = steps.send(_answer(connection, asked))
    except StopIteration as stop:
        result: T = stop.value
        return result


def test_a_parent_that_is_retried_while_a_pass_writes_down_its_end_lives(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("race")
    wf.add("a", job())
    wf.add("b", job())
    made = wf.enqueue()
    end(database, made.jobs["b"], state="completed")
    passed(pgq)
    end(database, made.jobs["a"], state="failed")
    with psycopg.connect(database) as operator, ThreadPoolExecutor() as threads:
        _within(operator, retry_jobs(pgq.sql, [made.jobs["a"]], ADA, {}))
        passing = threads.submit(passed, pgq)
        until(lambda: passing.done() or blocked_on(database, operator.info.backend_pid))
        operator.commit()
        passing.result(timeout=20)
    passed(pgq)
    assert (states(database, made)["a"], outcome(database, made)) == ("queued", "running")
    end(database, made.jobs["a"], state="completed")
    passed(pgq)
    assert (states(database, made)["a"], outcome(database, made)) == ("completed", "completed")


def test_a_parent_and_a_child_that_are_retried_in_one_go_run_in_order(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("both")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    wf.add("c", job(), after="b")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    pgq.retry(*made.jobs.values())
    assert states(database, made) == {"a": "queued", "b": "waiting", "c": "waiting"}
    for name in "abc":
        passed(pgq)
        assert states(database, made)[name] == "queued"
        end(database, made.jobs[name], state="completed")
    passed(pgq)
    assert outcome(database, made) == "completed"


def test_all_that_failed_or_was_called_off_can_be_retried_by_a_filter_in_order(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("outage")
    wf.add("a", job())
    wf.chain("step", [job() for _ in range(5)], after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    pgq.retry_many(JobFilter(queue="default"))
    assert set(states(database, made).values()) == {"queued", "waiting"}
    assert value(database, "select count(*) from pgqueue.jobs where state = 'queued'") == 1


def test_a_completed_node_of_a_cancelled_workflow_can_be_replayed(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    def node() -> None: ...

    wf = pgq.workflow("replayed")
    wf.add("a", node.payload())
    wf.add("b", node.payload(), after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="completed")
    rows(database, "update pgqueue.finished_jobs set errors = '[]'")
    pgq.cancel_workflow(made.id)
    pgq.replay(made.jobs["a"])
    passed(pgq)
    assert states(database, made) == {"a": "queued", "b": "cancelled"}


def test_a_node_that_was_added_while_its_workflow_was_cancelled_is_stopped_where_it_runs(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("stop")
    wf.add("a", job())
    made = wf.enqueue()
    with psycopg.connect(database) as connection:
        more = pgq.workflow_of(made.id)
        more.add("b", job())
        added = more.enqueue(connection=connection)
        pgq.cancel_workflow(made.id)
    run_on(database, added.jobs["b"], 1)
    passed(pgq)
    marked = "select cancel_requested_at is not null from pgqueue.jobs where id = %s"
    assert value(database, marked, [added.jobs["b"]])


def test_who_follows_a_held_node_goes_by_how_that_one_ends(pgq: PgQueue, database: str) -> None:
    """Its parent has failed, but it is cancelled by somebody before the pass gets it."""
    wf = pgq.workflow("held")
    wf.add("a", job())
    wf.add("b", job(), after="a", parent_failed="fail")
    wf.add("c", job(), after="b", parent_cancelled="ignore")
    wf.add("d", job(), after="c")
    wf.add("e", job(), after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    with psycopg.connect(database) as canceller:
        _within(canceller, cancel_jobs(pgq.sql, [made.jobs["b"]]))
        assert passed(pgq).left == {made.id}
    passed(pgq)
    assert states(database, made) == {
        "a": "failed", "b": "cancelled", "c": "queued", "d": "waiting", "e": "cancelled",
    }  # fmt: skip


def test_two_who_add_at_once_cannot_close_a_circle_between_them(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("crossing")
    wf.add("first", job())
    wf.add("one", job(), after="first")
    wf.add("two", job(), after="first")
    made = wf.enqueue()
    with psycopg.connect(database) as adder, ThreadPoolExecutor() as threads:
        here, there = pgq.workflow_of(made.id), pgq.workflow_of(made.id)
        here.add("x", job(), after="one", before="two")
        there.add("y", job(), after="two", before="one")
        here.enqueue(connection=adder)
        adding = threads.submit(there.enqueue)
        until(lambda: adding.done() or blocked_on(database, adder.info.backend_pid))
        adder.commit()
        with pytest.raises(WorkflowInvalid, match="the workflow goes in a circle: 'two' comes"):
            adding.result(timeout=20)
    assert len(states(database, made)) == 4


def test_a_callback_that_has_not_begun_waits_for_those_that_are_retried(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("retried")
    wf.group("part", [job(), job()], callback=job())
    made = wf.enqueue()
    end(database, made.jobs["part[0]"], state="completed")
    end(database, made.jobs["part[1]"], state="failed")
    passed(pgq)
    assert states(database, made)["part.callback"] == "queued"
    assert pgq.retry_workflow(made.id).retried == (made.jobs["part[1]"],)
    assert states(database, made)["part.callback"] == "waiting"
    end(database, made.jobs["part[1]"], state="completed")
    passed(pgq)
    assert states(database, made)["part.callback"] == "queued"


def test_a_callback_that_runs_is_left_alone_by_a_retry(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("retried")
    wf.group("part", [job(), job()], callback=job())
    made = wf.enqueue()
    end(database, *(made.jobs[f"part[{n}]"] for n in range(2)), state="failed")
    passed(pgq)
    run_on(database, made.jobs["part.callback"], 1)
    pgq.retry_workflow(made.id)
    assert states(database, made)["part.callback"] == "running"
    end(database, *made.jobs.values(), state="completed")
    passed(pgq)
    assert outcome(database, made) == "completed"


def test_a_retry_does_not_wait_for_ever_for_a_node_that_somebody_holds(
    pgq: PgQueue, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_deeds, "WAIT", 0.1)
    wf = pgq.workflow("held")
    wf.add("a", job())
    wf.add("b", job(), after="a", parent_failed="ignore")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    with psycopg.connect(database) as stranger:
        stranger.execute("select from pgqueue.jobs for update")
        with pytest.raises(WorkflowBusy):
            pgq.retry_workflow(made.id)
    assert states(database, made) == {"a": "failed", "b": "queued"}
    pgq.retry_workflow(made.id)
    assert states(database, made) == {"a": "queued", "b": "waiting"}


def test_a_day_is_not_dropped_before_those_who_wait_know_how_its_jobs_ended(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    """All workers stopped right after an ending, for longer than finished jobs are kept."""
    rows(database, "select pgqueue.make_partitions()")
    wf = pgq.workflow("pause")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="completed")
    clock.move(days=40)
    assert pgq.prune().dropped
    assert value(database, "select count(*) from pgqueue.finished_jobs") == 0
    passed(pgq)
    assert states(database, made) == {"a": "completed", "b": "queued"}

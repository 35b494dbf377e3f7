"""What follows when nodes end: who goes, who is called off; nobody is lost or goes twice."""

from __future__ import annotations

import itertools
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from endings import COLUMNS, end
from pgqueue import Operator, PgQueue, WorkflowRun
from pgqueue.db.run import run
from pgqueue.engine.cancel import end_expired
from proving import Clock, rows, until, value
from workflows.flows import Stepped, job, outcome, passed, states


@pytest.fixture
def diamond(pgq: PgQueue) -> WorkflowRun:
    """a, then b and c, then d."""
    wf = pgq.workflow("diamond")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    wf.add("c", job(), after="a")
    wf.add("d", job(), after=["b", "c"])
    return wf.enqueue()


def test_a_node_goes_when_all_its_parents_have_completed(
    pgq: PgQueue, database: str, diamond: WorkflowRun
) -> None:
    jobs = diamond.jobs
    seen = [states(database, diamond)]
    for names in (["a"], ["b"], ["c"], ["d"]):
        end(database, *(jobs[name] for name in names), state="completed")
        passed(pgq)
        seen.append(states(database, diamond))
    assert [list(state.values()) for state in seen] == [
        ["queued", "waiting", "waiting", "waiting"],
        ["completed", "queued", "queued", "waiting"],
        ["completed", "completed", "queued", "waiting"],
        ["completed", "completed", "completed", "queued"],
        ["completed", "completed", "completed", "completed"],
    ]
    assert outcome(database, diamond) == "completed"
    assert value(database, "select count(*) from pgqueue.workflow_news") == 0


def test_the_order_in_which_parents_end_makes_no_difference(pgq: PgQueue, database: str) -> None:
    for order in itertools.permutations("abcd"):
        wf = pgq.workflow("wide")
        for name in sorted(order):
            wf.add(name, job())
        wf.add("last", job(), after=sorted(order))
        made = wf.enqueue()
        for name in order:
            assert states(database, made)["last"] == "waiting"
            end(database, made.jobs[name], state="completed")
            passed(pgq)
        assert states(database, made)["last"] == "queued"


@pytest.mark.parametrize(
    ("ends", "policies", "expected", "reason"),
    [
        ("failed", {}, "cancelled", "parent-failed"),
        ("failed", {"parent_failed": "fail"}, "failed", "parent-failed"),
        ("failed", {"parent_failed": "ignore"}, "queued", None),
        ("failed", {"parent_cancelled": "ignore"}, "cancelled", "parent-failed"),
        ("cancelled", {}, "cancelled", "parent-cancelled"),
        ("cancelled", {"parent_cancelled": "fail"}, "failed", "parent-cancelled"),
        ("cancelled", {"parent_cancelled": "ignore"}, "queued", None),
        ("cancelled", {"parent_failed": "ignore"}, "cancelled", "parent-cancelled"),
        ("deleted", {}, "cancelled", "parent-cancelled"),
        ("deleted", {"parent_cancelled": "fail"}, "failed", "parent-cancelled"),
        ("deleted", {"parent_cancelled": "ignore"}, "queued", None),
    ],
)
def test_a_policy_says_what_becomes_of_a_child(
    pgq: PgQueue,
    database: str,
    ends: str,
    policies: dict[str, str],
    expected: str,
    reason: str | None,
) -> None:
    wf = pgq.workflow("policy")
    wf.add("a", job())
    wf.add("b", job(), after="a", **policies)  # type: ignore[typeddict-item]
    made = wf.enqueue()
    if ends == "deleted":
        pgq.delete(made.jobs["a"])
    else:
        end(database, made.jobs["a"], state=ends)
    passed(pgq)
    assert states(database, made) == {"a": ends, "b": expected}
    told = pgq.show_job(made.jobs["b"])["errors"]
    assert [error["reason"] for error in told] == ([reason] if reason else [])


def test_a_child_is_called_off_as_soon_as_one_parent_has_failed(
    pgq: PgQueue, database: str, diamond: WorkflowRun
) -> None:
    end(database, diamond.jobs["a"], state="completed")
    passed(pgq)
    end(database, diamond.jobs["b"], state="failed")
    passed(pgq)
    assert states(database, diamond) == {
        "a": "completed",
        "b": "failed",
        "c": "queued",
        "d": "cancelled",
    }
    (error,) = pgq.show_job(diamond.jobs["d"])["errors"]
    assert error["message"] == f"node b (job {diamond.jobs['b']}) failed"
    assert outcome(database, diamond) == "running"
    end(database, diamond.jobs["c"], state="completed")
    passed(pgq)
    assert outcome(database, diamond) == "failed"


def test_a_long_chain_is_called_off_by_one_failure(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("long")
    wf.chain("step", [job() for _ in range(1200)])
    made = wf.enqueue()
    end(database, made.jobs["step[0]"], state="failed")
    assert passed(pgq).ended == 1199
    assert set(states(database, made).values()) == {"failed", "cancelled"}
    assert outcome(database, made) == "failed"


def test_a_grandchild_goes_by_how_its_parent_ended_and_not_by_how_it_might_have(
    pgq: PgQueue, database: str
) -> None:
    """The parent has a failed and a cancelled parent at once, and its policies differ."""
    wf = pgq.workflow("doubt")
    wf.add("a", job())
    wf.add("b", job())
    wf.add("p", job(), after=["a", "b"], parent_failed="fail", parent_cancelled="cancel")
    wf.add("c", job(), after="p", parent_failed="cancel", parent_cancelled="fail")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    end(database, made.jobs["b"], state="cancelled")
    passed(pgq)
    assert states(database, made) == {
        "a": "failed", "b": "cancelled", "p": "failed", "c": "cancelled",
    }  # fmt: skip


def test_a_callback_runs_once_all_have_ended_in_whatever_way(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("group")
    wf.group("part", [job() for _ in range(4)], callback=job())
    made = wf.enqueue()
    for place, state in enumerate(["failed", "completed", "cancelled"]):
        end(database, made.jobs[f"part[{place}]"], state=state)
        passed(pgq)
    assert states(database, made)["part.callback"] == "waiting"
    pgq.delete(made.jobs["part[3]"])
    passed(pgq)
    assert states(database, made)["part.callback"] == "queued"
    assert passed(pgq).released == 0


def test_two_parents_that_end_at_once_do_not_both_miss_their_child(
    pgq: PgQueue, database: str
) -> None:
    """Each ends in a transaction of its own, neither sees the other, and each is followed."""
    for first, second in (("b", "c"), ("c", "b")):
        wf = pgq.workflow("race")
        wf.add("b", job())
        wf.add("c", job())
        wf.add("d", job(), after=["b", "c"])
        made = wf.enqueue()
        with psycopg.connect(database) as one, psycopg.connect(database) as other:
            _end_within(one, made.jobs[first])
            _end_within(other, made.jobs[second])
            one.commit()
            passed(pgq)
            assert states(database, made)["d"] == "waiting"
            other.commit()
            passed(pgq)
        assert states(database, made)["d"] == "queued"


def test_two_passes_that_meet_leave_nobody_behind_however_their_statements_fall(
    pgq: PgQueue, database: str
) -> None:
    """One pass begins after b has ended, the other after c: every order of their statements."""
    for turns in itertools.combinations(range(8), 4):
        wf = pgq.workflow("race")
        wf.add("b", job())
        wf.add("c", job())
        wf.add("d", job(), after=["b", "c"])
        made = wf.enqueue()
        end(database, made.jobs["b"], state="completed")
        one = Stepped(pgq, made.id)
        one.step()
        end(database, made.jobs["c"], state="completed")
        other = Stepped(pgq, made.id)
        for turn in range(8):
            (one if turn in turns else other).step()
        while one.step() or other.step():
            pass
        assert one.result
        assert other.result
        released = one.result.released + other.result.released
        if one.result.left or other.result.left:
            # The one that was turned away comes again.
            released += passed(pgq).released
        assert (released, states(database, made)["d"]) == (1, "queued")
        one.cut()
        other.cut()


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_pass_that_dies_at_any_statement_is_made_up_for(
    pgq: PgQueue, database: str, state: str
) -> None:
    sent = 0
    while True:
        wf = pgq.workflow("killed")
        wf.add("a", job())
        wf.add("b", job(), after="a")
        wf.group("c", [job() for _ in range(3)], after="a", parent_failed="ignore", callback=job())
        made = wf.enqueue()
        end(database, made.jobs["a"], state=state)
        dying = Stepped(pgq, made.id)
        is_over = not all(dying.step() for _ in range(sent))
        dying.cut()
        # The server may need a moment to see that its client is gone.
        until(lambda: not passed(pgq).left)
        b = "queued" if state == "completed" else "cancelled"
        assert list(states(database, made).values()) == [state, b, *["queued"] * 3, "waiting"]
        assert value(database, "select count(*) from pgqueue.workflow_news") == 0
        if is_over:
            break
        sent += 1
    assert sent > 8


def test_a_node_whose_row_somebody_holds_goes_later_and_holds_up_nobody(
    pgq: PgQueue, database: str, diamond: WorkflowRun
) -> None:
    end(database, diamond.jobs["a"], state="completed")
    with psycopg.connect(database) as stranger:
        held = diamond.jobs["b"]
        stranger.execute("select from pgqueue.jobs where id = %s for update", [held])
        first = passed(pgq)
        assert (first.released, first.left) == (1, {diamond.id})
        assert states(database, diamond)["c"] == "queued"
    assert passed(pgq).released == 1
    assert states(database, diamond)["b"] == "queued"


def test_a_doomed_node_whose_row_somebody_holds_is_called_off_later(
    pgq: PgQueue, database: str, diamond: WorkflowRun
) -> None:
    end(database, diamond.jobs["a"], state="failed")
    with psycopg.connect(database) as stranger:
        held = diamond.jobs["b"]
        stranger.execute("select from pgqueue.jobs where id = %s for update", [held])
        assert passed(pgq).left == {diamond.id}
        assert states(database, diamond)["c"] == "cancelled"
    assert passed(pgq).left == frozenset()
    assert set(states(database, diamond).values()) == {"failed", "cancelled"}


def test_a_pass_and_a_cancel_of_the_same_nodes_do_not_deadlock(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("wide")
    wf.add("a", job())
    wf.group("g", [job() for _ in range(50)], after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="completed")
    with psycopg.connect(database) as canceller:
        # From the other end, as no statement of ours would.
        for place in reversed(range(25, 50)):
            canceller.execute(
                "select from pgqueue.jobs where id = %s for update", [made.jobs[f"g[{place}]"]]
            )
        assert passed(pgq).released == 25
        canceller.execute("select from pgqueue.jobs where id = %s for update", [made.jobs["g[0]"]])
    assert passed(pgq).released == 25


def test_a_node_that_is_let_go_is_due_now_and_keeps_its_own_time(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    rows(database, "select pgqueue.make_partitions()")
    wf = pgq.workflow("times")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    wf.add("later", replace(job(), delay=7200), after="a")
    made = wf.enqueue()
    asked = clock.at
    clock.move(hours=1)
    end(database, made.jobs["a"], state="completed")
    passed(pgq)
    found = rows(database, "select run_at, scheduled_at from pgqueue.jobs order by id")
    assert [one.total_seconds() for one in (found[0][0] - asked, found[0][1] - asked)] == [3600, 0]
    assert (found[1][0] - asked).total_seconds() == 7200


def test_a_parent_that_is_retried_is_waited_for_again(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("again")
    wf.add("a", job())
    wf.add("b", job())
    wf.add("c", job(), after=["a", "b"], parent_failed="ignore")
    made = wf.enqueue()
    end(database, made.jobs["b"], state="failed")
    passed(pgq)
    pgq.retry(made.jobs["b"])
    end(database, made.jobs["a"], state="completed")
    passed(pgq)
    assert states(database, made)["c"] == "waiting"
    end(database, made.jobs["b"], state="completed")
    passed(pgq)
    assert states(database, made)["c"] == "queued"


def test_a_job_that_is_retried_before_anybody_looked_has_not_ended(
    pgq: PgQueue, database: str
) -> None:
    wf = pgq.workflow("quick")
    wf.add("a", job())
    wf.add("b", job(), after="a")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    pgq.retry(made.jobs["a"])
    passed(pgq)
    assert states(database, made) == {"a": "queued", "b": "waiting"}


def test_a_cancelled_child_that_is_retried_waits_for_its_parents(
    pgq: PgQueue, database: str, diamond: WorkflowRun
) -> None:
    pgq.cancel(diamond.jobs["d"], by=Operator("ada"))
    passed(pgq)
    pgq.retry(diamond.jobs["d"])
    assert states(database, diamond)["d"] == "waiting"
    end(database, diamond.jobs["a"], state="completed")
    passed(pgq)
    end(database, diamond.jobs["b"], diamond.jobs["c"], state="completed")
    passed(pgq)
    assert states(database, diamond)["d"] == "queued"


def test_the_outcome_of_a_parent_outlives_its_row(pgq: PgQueue, database: str) -> None:
    wf = pgq.workflow("retention")
    wf.add("a", job())
    wf.add("b", job())
    wf.add("c", job(), after=["a", "b"], parent_failed="ignore")
    made = wf.enqueue()
    end(database, made.jobs["a"], state="failed")
    passed(pgq)
    rows(database, "delete from pgqueue.finished_jobs")
    end(database, made.jobs["b"], state="completed")
    passed(pgq)
    assert states(database, made) == {"a": "failed", "b": "completed", "c": "queued"}


def test_expiry_ends_a_node_like_a_cancel(pgq: PgQueue, database: str, clock: Clock) -> None:
    rows(database, "select pgqueue.make_partitions()")
    wf = pgq.workflow("expiry")
    wf.add("a", replace(job(), expires_at=clock.at))
    wf.add("b", job(), after="a")
    made = wf.enqueue()
    clock.move(seconds=1)
    with pgq.pools.connection() as connection:
        run(connection, end_expired(pgq.sql))
    passed(pgq)
    assert states(database, made) == {"a": "cancelled", "b": "cancelled"}


def test_a_job_without_a_workflow_tells_nobody(pgq: PgQueue, database: str) -> None:
    @pgq.task
    def alone() -> None: ...

    end(database, alone.enqueue().id, state="completed")
    assert value(database, "select count(*) from pgqueue.workflow_news") == 0


def _end_within(connection: psycopg.Connection, job_id: int) -> None:
    statement = sql.SQL(
        "with gone as (delete from pgqueue.jobs where id = %s returning {columns}, attempt, "
        "errors) insert into pgqueue.finished_jobs ({columns}, attempt, errors, state) "
        "select {columns}, attempt, errors, 'completed' from gone"
    ).format(columns=COLUMNS)
    connection.execute(statement, [job_id])

"""Fan-out to thousands and fan-in: the cost of a node does not grow with the width."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg import sql

from endings import end
from pgqueue import PgQueue, WorkflowRun
from pgqueue.db import run as driving
from proving import value
from workflows.flows import job, outcome, passed, states

BATCH = 250
"""Endings that come together, as from a busy worker."""


class Statements:
    """How many statements were sent since it was asked last."""

    def __init__(self) -> None:
        self.sent = 0

    def since(self) -> int:
        sent, self.sent = self.sent, 0
        return sent


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    counted, answer = Statements(), driving._answer

    def counting(connection: Any, asked: Any) -> Any:
        counted.sent += 1
        return answer(connection, asked)

    monkeypatch.setattr(driving, "_answer", counting)
    return counted


def _brought_to_its_end(
    pgq: PgQueue, url: str, width: int, order: str, statements: Statements
) -> tuple[WorkflowRun, Counter[str]]:
    """One node, then `width` beside each other, then one; and the statements of each part."""
    wf = pgq.workflow("wide")
    wf.add("first", job())
    group = wf.group("part", [job(n=n) for n in range(width)], after="first")
    wf.add("last", job(), after=group)
    statements.since()
    made = wf.enqueue()
    sent = Counter(enqueue=statements.since())
    end(url, made.jobs["first"], state="completed")
    assert passed(pgq).released == width
    sent["fan-out"] = statements.since()
    names = [made.jobs[f"part[{n}]"] for n in range(width)]
    if order == "random":
        random.Random(3).shuffle(names)  # noqa: S311 - repeatable
    elif order == "last first":
        names.reverse()
    for start in range(0, width, BATCH):
        assert states(url, made)["last"] == "waiting"
        end(url, *names[start : start + BATCH], state="completed")
        passed(pgq)
    sent["fan-in"] = statements.since()
    assert states(url, made)["last"] == "queued"
    end(url, made.jobs["last"], state="completed")
    passed(pgq)
    assert outcome(url, made) == "completed"
    return made, sent


@pytest.mark.parametrize("order", ["first first", "last first", "random"])
def test_statements_grow_with_batches_and_not_with_nodes(
    pgq: PgQueue, database: str, statements: Statements, order: str
) -> None:
    made, sent = _brought_to_its_end(pgq, database, 1000, order, statements)
    assert len(made.jobs) == 1002
    assert sent["enqueue"] <= 12
    # A round of 500 is 9 statements; each batch of endings is followed by one look and one round.
    assert sent["fan-out"] <= 3 * 9 + 2
    assert sent["fan-in"] <= 4 * (9 + 2)


def test_the_edges_of_a_fan_in_are_read_twice_however_its_parents_end(
    pgq: PgQueue, database: str, statements: Statements
) -> None:
    """Not once for each ending: with a counter of the scans that the database itself keeps."""
    read = (
        "select coalesce(sum(idx_tup_fetch), 0) + coalesce(sum(seq_tup_read), 0) "
        "from pg_stat_user_tables where relname = 'job_dependencies' and schemaname = 'pgqueue'"
    )
    for width in (500, 1000):
        before = value(database, read)
        _brought_to_its_end(pgq, database, width, "last first", statements)
        # The watched one ends first each time: the worst there is. The rest is `states` and the
        # look whether a settled node has children.
        assert value(database, read) - before < 8 * width


@pytest.mark.slow
def test_ten_thousand_beside_each_other(
    pgq: PgQueue, database: str, statements: Statements
) -> None:
    made, sent = _brought_to_its_end(pgq, database, 10_000, "random", statements)
    assert len(made.jobs) == 10_002
    assert sent["enqueue"] <= 12
    assert sent["fan-out"] <= 21 * 9 + 2
    assert sent["fan-in"] <= 40 * (9 + 2)


@pytest.mark.parametrize("name", ["watch_workflows", "release_nodes"])
def test_a_pass_takes_the_first_by_the_index_whatever_the_statistics_say(
    pgq: PgQueue, database: str, name: str
) -> None:
    """They are from when the tables were empty, and the plan is a generic one."""
    with psycopg.connect(database) as connection:
        for table in ("workflow_nodes", "job_dependencies"):
            query = sql.SQL("alter table pgqueue.{} set (autovacuum_enabled = off)")
            connection.execute(query.format(sql.Identifier(table)))
            connection.execute(sql.SQL("analyze pgqueue.{}").format(sql.Identifier(table)))
        connection.commit()
        wf = pgq.workflow("wide")
        wf.add("last", job(), after=wf.group("part", [job() for _ in range(2000)]))
        made = wf.enqueue()
        connection.execute(pgq.sql["open_pass"])
        connection.execute("set local plan_cache_mode = force_generic_plan")
        params = {"ids": [made.id], "told": []}
        if name == "release_nodes":
            params = {"ids": [made.jobs["last"]]}
        plan = connection.execute("explain " + pgq.sql[name], params).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Sort" not in text, text
    assert "Bitmap" not in text, text


@pytest.mark.parametrize("name", ["lock_waiting_nodes", "forget_news"])
def test_who_waits_for_whom_is_found_by_its_index_whatever_the_statistics_say(
    pgq: PgQueue, database: str, name: str
) -> None:
    """They are from when all nodes waited for one."""
    wf = pgq.workflow("wide")
    wf.add("first", job())
    wf.group("part", [job() for _ in range(2000)], after="first")
    made = wf.enqueue()
    ids = [made.jobs["first"]]
    params = {
        "ended": ids, "told": [], "n": 500, "workflow_ids": [made.id], "ids": ids, "job_ids": ids,
        "keep": [], "looked_at": [],
    }  # fmt: skip
    with psycopg.connect(database) as connection:
        connection.execute("analyze pgqueue.workflow_nodes")
        connection.execute(pgq.sql["open_pass"])
        connection.execute("set local plan_cache_mode = force_generic_plan")
        plan = connection.execute("explain " + pgq.sql[name], params).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "workflow_nodes_waiting" in text, text
    assert "workflow_nodes_pkey" not in text, text


def test_a_retry_looks_for_each_job_in_its_own_day(pgq: PgQueue, database: str) -> None:
    """Else it looks through every day that is kept, for each node."""
    wf = pgq.workflow("wide")
    wf.group("part", [job(n=n) for n in range(100)])
    made = wf.enqueue()
    end(database, *made.jobs.values(), state="failed")
    passed(pgq)
    looks = (
        "select coalesce(sum(idx_scan + seq_scan), 0) from pg_stat_xact_user_tables "
        "where relname like 'finished_jobs%'"
    )
    for name, params in (
        ("find_uncompleted_nodes", {"id": made.id}),
        ("find_nodes_from", {"ids": sorted(made.jobs.values())}),
    ):
        with psycopg.connect(database) as connection:
            found = connection.execute(pgq.sql[name], params).fetchall()
            counted = connection.execute(looks).fetchone()
        assert len(found) == 100
        assert counted is not None
        assert counted[0] <= 200, "its day among what completed, and among what failed"

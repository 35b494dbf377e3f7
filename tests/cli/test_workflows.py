"""pgq workflows: the drawing for people, the documents for machines, and the deeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from pgqueue.cli.drawing import lines

from endings import end
from pgqueue import PgQueue, WorkflowRun
from workflows.flows import job, passed

Run = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("app", "rows")

DRAWING = """\
workflow 1 nightly: running, 1 of 15 nodes have ended
start: completed (job 1, noop)
├ left: queued (job 2, noop)
├ part x 8: 8 queued
│ ↓ part.callback: waiting (job 12, noop)
│ ↓ last: waiting (job 14, noop), also after left
└ step[0]: queued (job 11, noop)
  ↓ step[1]: waiting (job 13, noop)
  ↓ step[2]: waiting (job 15, noop)
"""


@pytest.fixture
def nightly(pgq: PgQueue, database: str) -> WorkflowRun:
    wf = pgq.workflow("nightly")
    start = wf.add("start", job())
    left = wf.add("left", job(), after=start)
    parts = wf.group("part", [job() for _ in range(8)], after=start, callback=job())
    assert parts.callback is not None
    wf.add("last", job(), after=[left, parts.callback])
    wf.chain("step", [job(), job(), job()], after=start)
    made = wf.enqueue()
    end(database, made.jobs["start"], state="completed")
    passed(pgq)
    return made


def test_show_draws_the_graph_with_large_groups_as_one_line(
    nightly: WorkflowRun, pgq_command: Run
) -> None:
    assert pgq_command("workflows", "show", "1").out == DRAWING
    every = pgq_command("workflows", "show", "1", "--all").out
    assert "part[7]: queued (job 10, noop)" in every
    assert "also after part[0], part[1], part[2], part[3], part[4] and 2 more" in every


def test_show_gives_machines_the_graph(nightly: WorkflowRun, pgq_command: Run) -> None:
    document = json.loads(pgq_command("workflows", "show", "1", "--json").out)
    assert (document["state"], document["nodes"], document["completed"]) == ("running", 15, 1)
    assert document["graph"][1] == {
        "job_id": 2,
        "name": "left",
        "group_name": None,
        "task": "noop",
        "state": "queued",
        "parent_failed": "cancel",
        "parent_cancelled": "cancel",
        "started_at": None,
        "finished_at": None,
        "after": ["start"],
    }


def test_list_cancel_retry_and_rerun(
    nightly: WorkflowRun, pgq: PgQueue, database: str, pgq_command: Run
) -> None:
    (row,) = json.loads(pgq_command("workflows", "list", "--state", "running", "--json").out)
    assert (row["id"], row["name"], row["queued"], row["waiting"]) == (1, "nightly", 10, 4)
    assert "nightly" in pgq_command("workflows", "list").out
    assert pgq_command("workflows", "cancel", "1").out.startswith("cancelled (14): 2, 3, 4")
    said = json.loads(pgq_command("workflows", "retry", "1", "--json").out)
    assert said == {"retried": list(range(2, 16)), "refused": {}, "missing": []}
    end(database, *nightly.jobs.values(), state="completed")
    passed(pgq)
    assert pgq_command("workflows", "rerun", "1", "step").out == "run again (3): 11, 13, 15\n"
    end(database, *nightly.jobs.values(), state="completed")
    passed(pgq)
    said = pgq_command("workflows", "retry", "1").out
    assert said == "nothing to run again: no node has failed or was cancelled\n"


def test_show_says_why_nodes_failed_and_which_will_be_tried_again(
    nightly: WorkflowRun, database: str, pgq_command: Run
) -> None:
    end(database, nightly.jobs["left"], state="failed")
    with psycopg.connect(database) as connection:
        connection.execute(
            "update pgqueue.jobs set run_at = '2030-01-31 08:00+00', attempt = 1, "
            """errors = '[{"type": "OSError", "message": "away\\u001b[2J"}]' where id = %s""",
            [nightly.jobs["part[3]"]],
        )
    said = pgq_command("workflows", "show", "1").out.splitlines()
    assert said[-2:] == [
        "left (job 2): no such host",
        "part[3] (job 6): OSError: away[2J, next try 2030-01-31T08:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("show", "99"), 1, "workflow 99 does not exist, or retention has dropped it"),
        (("cancel", "99"), 1, "workflow 99 does not exist, or retention has dropped it"),
        (("retry", "99"), 1, "workflow 99 does not exist, or retention has dropped it"),
        (("rerun", "1", "nobody"), 2, "has no node 'nobody': `pgq workflows show 1 --all` lists"),
        (("list", "--state", "done"), 2, "state 'done' is not valid"),
        (("show", "0"), 2, "Invalid value for 'ID'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    nightly: WorkflowRun, pgq_command: Run, arguments: tuple[str, ...], code: int, error: str
) -> None:
    said = pgq_command("workflows", *arguments)
    assert (said.code, said.out) == (code, "")
    assert error in said.err


def test_a_name_cannot_command_the_terminal(pgq: PgQueue) -> None:
    wf = pgq.workflow("wf")
    wf.add("red\x1b[31m\u202e", job())
    graph = pgq.show_workflow(wf.enqueue().id)["graph"]
    assert list(lines(graph)) == ["red[31m: queued (job 1, noop)"]


def test_a_graph_with_a_thousand_branches_below_each_other_is_drawn_line_by_line() -> None:
    graph: list[dict[str, Any]] = []
    for n in range(1000):
        above = [f"step-{n - 1}"] if n else []
        for name in (f"step-{n}", f"side-{n}"):
            graph.append({
                "name": name, "group_name": None, "task": name, "state": "waiting",
                "job_id": len(graph), "after": above,
            })  # fmt: skip
    drawn = list(lines(graph))
    assert len(drawn) == 2000
    assert max(len(line) for line in drawn) < 200
    (last,) = [line for line in drawn if "side-999" in line]
    assert last.endswith("side-999: waiting (job 1999, side-999), after step-998")

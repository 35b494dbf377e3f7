"""Random graphs, and what must be true of one that has ended, by what its nodes left behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from pgqueue import PgQueue, WorkflowRun
from pgqueue.builder import Workflow
from pgqueue.engine.graph import POLICIES
from pgqueue.job import NewJob
from proving import rows

Make = Callable[[int], NewJob]


def random_workflow(pgq: PgQueue, size: int, rand: random.Random, make: Make) -> Workflow:
    """So many nodes, each after some of those before, with random policies; and one group."""
    wf = pgq.workflow("random")
    members = size // 4
    for number in range(size - members):
        most = min(number, rand.choice([1, 2, 3, 8]))
        parents = [f"n{place}" for place in rand.sample(range(number), rand.randint(0, most))]
        wf.add(f"n{number}", make(number), after=parents, **_policies(rand))  # type: ignore[arg-type]
    if members:
        first = f"n{rand.randrange(size - members)}"
        jobs = [make(size + place) for place in range(members)]
        wf.group("g", jobs, after=first, callback=make(-1), **_policies(rand))  # type: ignore[arg-type]
    return wf


def _policies(rand: random.Random) -> dict[str, str]:
    often = ["ignore", *POLICIES]
    return {"parent_failed": rand.choice(often), "parent_cancelled": rand.choice(often)}


def verdicts(node: Mapping[str, Any], outcomes: Mapping[str, str]) -> set[str]:
    """How the node ends without running, by any of its parents; empty when it is to run."""
    found = set()
    for parent in node["after"]:
        if outcomes[parent] == "completed":
            continue
        policy = node["parent_failed" if outcomes[parent] == "failed" else "parent_cancelled"]
        found |= {"cancel": {"cancelled"}, "fail": {"failed"}, "ignore": set()}[policy]
    return found


def assert_consistent(
    pgq: PgQueue, url: str, made: WorkflowRun, exempt: frozenset[str] = frozenset()
) -> None:
    """Exactly the nodes ran that should have, and each after all its parents had ended.

    `exempt` are nodes that somebody ended by hand.
    """
    shown = pgq.show_workflow(made.id)
    nodes = {node["name"]: node for node in shown["graph"]}
    outcomes = {name: node["state"] for name, node in nodes.items()}
    assert set(outcomes.values()) <= {"completed", "failed", "cancelled", "deleted"}
    ran = {
        job_id: (attempt, started_at)
        for job_id, attempt, started_at in rows(
            url, "select id, attempt, started_at from pgqueue.finished_jobs"
        )
    }
    for name, node in nodes.items():
        if name in exempt:
            continue
        attempt, started_at = ran[node["job_id"]]
        doomed = verdicts(node, outcomes)
        if doomed:
            assert (attempt, node["state"] in doomed) == (0, True), (name, node, doomed)
            continue
        assert attempt >= 1, (name, node)
        for parent in node["after"]:
            ended = nodes[parent]["finished_at"]
            assert ended is None or started_at is None or ended <= started_at, (name, parent)
    worst = "failed" if "failed" in outcomes.values() else "cancelled"
    expected = "completed" if set(outcomes.values()) == {"completed"} else worst
    assert shown["state"] == expected
    assert rows(url, "select from pgqueue.workflow_news") == []
    assert rows(url, "select from pgqueue.jobs") == []

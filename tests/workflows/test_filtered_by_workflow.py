"""Jobs by the workflow they belong to: listed, and retried."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from endings import end
from pgqueue import JobFilter, PgQueue
from pgqueue.errors import ConfigError
from proving import rows
from workflows.flows import job


def _two(pgq: PgQueue) -> tuple[int, int]:
    """The ids of two workflows of two jobs each."""
    made = []
    for name in ("one", "other"):
        wf = pgq.workflow(name)
        wf.chain("step", [job(), job()])
        made.append(wf.enqueue().id)
    return made[0], made[1]


def _listed(pgq: PgQueue, workflow_id: int) -> list[Any]:
    return [row["workflow_id"] for row in pgq.list_jobs(JobFilter(workflow_id=workflow_id))]


def test_those_of_one_workflow_are_listed_live_and_finished(pgq: PgQueue, database: str) -> None:
    one, other = _two(pgq)
    (first,) = rows(database, "select min(id) from pgqueue.jobs where workflow_id = %s", [one])[0]
    end(database, first, state="completed")
    assert _listed(pgq, one) == [one, one]
    assert _listed(pgq, other) == [other, other]
    assert _listed(pgq, other + 1) == []
    finished = JobFilter(workflow_id=one, states=("completed",))
    assert [row["id"] for row in pgq.list_jobs(finished)] == [first]


def test_a_retry_by_filter_keeps_to_the_workflow(pgq: PgQueue, database: str) -> None:
    one, other = _two(pgq)
    firsts = rows(database, "select min(id) from pgqueue.jobs group by workflow_id order by 1")
    for (job_id,) in firsts:
        end(database, job_id, state="failed")
    wanted = JobFilter(workflow_id=other)
    assert pgq.preview_retry(wanted).count == 1
    assert pgq.retry_many(wanted).retried == (firsts[1][0],)
    assert pgq.get_job(firsts[0][0]).state == "failed"
    assert one != other


def test_many_other_jobs_are_not_looked_at(pgq: PgQueue, database: str) -> None:
    one, _ = _two(pgq)
    rows(
        database,
        "insert into pgqueue.jobs (task, queue, payload) "
        "select 'noop', 'default', '{}' from generate_series(1, 3000)",
    )
    params = {**JobFilter(workflow_id=one).params, "n": 50, "before": None}
    with psycopg.connect(database) as connection:
        connection.execute("set local enable_seqscan = off")
        plan = connection.execute(
            "explain (analyze, costs off, timing off, summary off, format json) "
            + pgq.sql["list_jobs"],
            params,
        ).fetchall()[0][0]
    assert _most_rows(plan[0]["Plan"]) <= 50


def _most_rows(node: dict[str, Any]) -> int:
    """The most rows that a part of the plan read, those that it threw away included."""
    here = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return max([int(here), *(_most_rows(below) for below in node.get("Plans", []))])


@pytest.mark.parametrize("wrong", [0, -1, 2**63, True, "1"])
def test_what_is_no_workflow_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"workflow_id .* is not valid"):
        JobFilter(workflow_id=wrong)

"""The plans of the hot statements, where statistics are stale and plans generic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.engine.claim import LANE_START, STEADY, Lane, claim_jobs, look_around
from pgqueue.engine.finish import outcome_statements
from pgqueue.engine.rescue import Sql
from pgqueue.job import Ended, Requeued, State
from proving import rows

MANY = 10_000
STALE = ("empty", "all running", "none", "one page")


def _fill(connection: psycopg.Connection[Any], state: str, count: int) -> None:
    held = state == "running"
    connection.execute(
        """
        insert into pgqueue.jobs
          (task, queue, priority, state, lease, worker_id, started_at, run_at)
        select 'noop', 'q' || n %% 3, 5 + n %% 2, %(state)s::text,
          case when %(held)s then n end, case when %(held)s then n %% 5 + 1 end,
          case when %(held)s then now() end, now() - interval '1 day' + n * interval '1 ms'
        from generate_series(1, %(count)s) as n
        """,
        {"state": state, "held": held, "count": count},
    )


@pytest.fixture(params=STALE)
def stale(request: pytest.FixtureRequest, pgq: PgQueue) -> Iterator[psycopg.Connection[Any]]:
    """Many jobs, and statistics from another time."""
    with pgq.connection() as connection:
        connection.execute("alter table pgqueue.jobs set (autovacuum_enabled = off)")
        if request.param == "empty":
            connection.execute("analyze pgqueue.jobs")
        if request.param == "all running":
            _fill(connection, "running", MANY)
            connection.execute("analyze pgqueue.jobs")
            connection.execute(
                "update pgqueue.jobs set state = 'queued', lease = null, worker_id = null "
                "where id % 10 <> 0"
            )
        else:
            _fill(connection, "queued", 20)
            if request.param == "one page":
                connection.execute("analyze pgqueue.jobs")
            _fill(connection, "queued", MANY)
            _fill(connection, "running", MANY // 10)
        yield connection


def _plan(
    connection: psycopg.Connection[Any], text: str, params: Any, *, as_worker: bool
) -> list[dict[str, Any]]:
    """The nodes of the generic plan, depth first; `as_worker` with the setting a worker sends."""
    with connection.transaction(force_rollback=True):
        connection.execute("set local plan_cache_mode = force_generic_plan")
        if as_worker:
            connection.execute("set local enable_seqscan = off")
        # Prepared, so that the parameters stay parameters.
        ((plan,),) = connection.execute(
            "explain (format json, analyze, timing off) " + text, params, prepare=True
        ).fetchall()
    return list(_nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _no_seq_scan_of_jobs(nodes: list[dict[str, Any]]) -> None:
    scans = [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert [node for node in scans if node["Relation Name"] == "jobs"] == []


def _indexes(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in nodes if "Index Name" in node}


def _claim(sql: Sql, limit: int = 10) -> Any:
    lanes = [Lane(f"q{queue}", priority, LANE_START) for queue in range(3) for priority in (5, 6)]
    return claim_jobs(sql, lanes, ["noop"], worker_id=1, lease=5, limit=limit)


def test_the_claim_searches_its_index_by_all_four_conditions_and_writes_by_tid(
    pgq: PgQueue, stale: psycopg.Connection[Any]
) -> None:
    claim = _claim(pgq.sql)
    nodes = _plan(stale, claim.text, claim.params, as_worker=True)

    _no_seq_scan_of_jobs(nodes)
    (search,) = [node for node in nodes if node.get("Index Name") == "jobs_claim"]
    condition = search["Index Cond"]
    for part in ("queue = ", "priority = ", "run_at <= ", "ROW(run_at, id) > ROW("):
        assert part in condition
    assert "Sort" not in {node["Node Type"] for node in nodes}
    (write,) = [node for node in nodes if node["Node Type"] == "Tid Scan"]
    assert write["Actual Rows"] == 10
    assert search["Actual Rows"] * search["Actual Loops"] <= 10, "locked more than it asked for"


def test_the_claim_locks_no_row_of_a_paused_queue(
    pgq: PgQueue, stale: psycopg.Connection[Any]
) -> None:
    stale.execute("insert into pgqueue.queues (name, paused) values ('q0', true)")
    claim = _claim(pgq.sql)
    nodes = _plan(stale, claim.text, claim.params, as_worker=True)

    locks = [node for node in nodes if node["Node Type"] == "LockRows"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in locks) <= 10


def _running(connection: psycopg.Connection[Any]) -> list[tuple[int, int]]:
    return connection.execute(
        "select id, lease from pgqueue.jobs where state = 'running' order by id limit 40"
    ).fetchall()


@pytest.mark.parametrize("by", ["worker", "handler"])
def test_endings_find_each_job_by_its_id_and_write_by_tid(
    pgq: PgQueue, stale: psycopg.Connection[Any], by: str
) -> None:
    held = _running(stale)
    outcomes = [Ended(job_id, lease, State.COMPLETED, "1") for job_id, lease in held[:20]]
    outcomes += [Requeued(job_id, lease, 1.0, error='{"a": 1}') for job_id, lease in held[20:]]
    finish, requeue = outcome_statements(pgq.sql, outcomes)
    with stale.transaction(force_rollback=True):
        for statement, table in ((finish, "Delete"), (requeue, "Update")):
            nodes = _plan(stale, statement.text, statement.params, as_worker=by == "worker")
            _no_seq_scan_of_jobs(nodes)
            assert _indexes(nodes) == {"jobs_pkey"}
            assert "Tid Scan" in {node["Node Type"] for node in nodes}
            (modify,) = [
                node
                for node in nodes
                if node["Node Type"] == "ModifyTable" and node["Operation"] == table
            ]
            assert modify["Actual Rows"] == 20


def test_the_walk_over_lanes_reads_one_entry_per_lane(
    pgq: PgQueue, stale: psycopg.Connection[Any]
) -> None:
    statement = look_around(pgq.sql, 0)
    nodes = _plan(stale, statement.text, statement.params, as_worker=True)

    _no_seq_scan_of_jobs(nodes)
    read = [node for node in nodes if node.get("Index Name") == "jobs_claim"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 7


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("find_dead_workers", {"timeout": 15.0}),
        ("rescue_jobs", {"worker_id": 1, "timeout": 15.0}),
        (
            "hand_back_strays",
            {"worker_id": 1, "before": LANE_START[0], "in_flight": [1], "held": [2]},
        ),
        ("forget_worker", {"worker_id": 1}),
    ],
)
def test_what_a_worker_holds_is_found_by_the_index_of_running_jobs(
    pgq: PgQueue, stale: psycopg.Connection[Any], name: str, params: dict[str, Any]
) -> None:
    in_batches = name in {"rescue_jobs", "hand_back_strays"}
    nodes = _plan(stale, pgq.sql[name], params, as_worker=in_batches)

    _no_seq_scan_of_jobs(nodes)
    assert _indexes(nodes) - {"workers_pkey"} == {"jobs_running"}


def test_a_look_for_chores_reads_no_job_but_the_one_that_answers(
    pgq: PgQueue, stale: psycopg.Connection[Any]
) -> None:
    params = {
        "names": ["rescue", "expiry"],
        "at_most": [None, None],
        "looked_for": [True, True],
        "timeout": 15.0,
        "hold": 10.0,
        "worker_id": 1,
    }
    for known in (0, 5):
        # Where no worker is known each job that runs is to be rescued, and the first one tells it.
        stale.execute(
            "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, tasks) "
            "select id, 'h', 1, '1', '{}', 1, '{}' from generate_series(1, %s) as id",
            [known],
        )
        nodes = _plan(stale, pgq.sql["take_chore"], params, as_worker=False)

        _no_seq_scan_of_jobs(nodes)
        read = [node for node in nodes if node.get("Relation Name") == "jobs"]
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 1


LOOKUPS: dict[str, dict[str, Any]] = {
    "find_leases": {},
    "find_cancel_marks": {},
    "lock_lease": {},
    "find_live_state": {},
    "write_progress": {"percents": [1.0] * 20, "messages": ["half"] * 20},
    "write_logs": {"ages": [0.0] * 20, "levels": ["info"] * 20, "messages": ["line"] * 20},
}


@pytest.mark.parametrize("name", list(LOOKUPS))
@pytest.mark.parametrize("as_worker", [True, False])
def test_what_a_worker_looks_up_by_id_is_found_by_the_primary_key(
    pgq: PgQueue, stale: psycopg.Connection[Any], name: str, *, as_worker: bool
) -> None:
    held = _running(stale)[:20]
    ids, leases = [job_id for job_id, _ in held], [lease for _, lease in held]
    params = {"ids": ids, "leases": leases, "id": ids[0], "lease": leases[0], **LOOKUPS[name]}
    nodes = _plan(stale, pgq.sql[name], params, as_worker=as_worker)

    _no_seq_scan_of_jobs(nodes)
    assert _indexes(nodes) == {"jobs_pkey"}


def test_due_schedules_are_found_by_their_index(pgq: PgQueue) -> None:
    with pgq.connection() as connection:
        connection.execute("analyze pgqueue.schedules")
        connection.execute(
            "insert into pgqueue.schedules (name, cron, task, next_run_at) "
            "select 's' || n, '* * * * *', 't', now() + (n - 5) * interval '1 hour' "
            "from generate_series(1, 5000) as n"
        )
        nodes = _plan(connection, pgq.sql["lock_due_schedules"], {"n": 100}, as_worker=False)
    assert "schedules_due" in _indexes(nodes)
    scans = [node for node in nodes if node.get("Relation Name") == "schedules"]
    assert "Seq Scan" not in {node["Node Type"] for node in scans}


def test_what_forbids_a_plan_forbids_its_compilation_too(pgq: PgQueue, database: str) -> None:
    """A forbidden plan that is the only one has a cost of 1e10, and where the server can compile
    plans it would: a quarter of a second for each look. Not every server can, so this is a rule."""
    found = rows(
        database,
        "select proname from pg_proc where pronamespace = 'pgqueue'::regnamespace "
        "and 'enable_seqscan=off' = any(proconfig) and not 'jit=off' = any(proconfig)",
    )
    assert found == []
    assert STEADY["enable_seqscan"] == STEADY["jit"] == "off"
    forbidding = [text for text in pgq.sql.values() if "'enable_seqscan'" in text]
    assert len(forbidding) >= 1
    assert all("'jit'" in text for text in forbidding)

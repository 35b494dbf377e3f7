"""What admission reads does not grow with the lines, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from endings import worker
from pgqueue import Limit, PgQueue

NOISY = 20_000
TENANTS = 20

BLOCKED = """
insert into pgqueue.jobs (task, queue, state, limits, blocked_on, tenant, run_at)
select 'send', 'default', 'blocked', array['email', 'tenant:' || %(tenant)s], %(place)s, %(tenant)s,
  now() - interval '1 hour' + n * interval '1 ms'
from generate_series(1, %(count)s) as n
"""


@pytest.fixture(params=["empty", "none", "all queued"])
def noisy(
    request: pytest.FixtureRequest, pgq: PgQueue, database: str
) -> Iterator[psycopg.Connection[Any]]:
    """One tenant with a long line, twenty with short ones, and statistics of another time."""

    @pgq.task(name="send", limits=[Limit("email", running=5), Limit("tenant:{tenant}", running=5)])
    def send() -> None: ...

    worker(database, tasks=["send"])
    send.using(tenant="noisy").enqueue()
    with pgq.connection() as connection:
        connection.execute("delete from pgqueue.jobs")
        connection.execute("alter table pgqueue.jobs set (autovacuum_enabled = off)")
        if request.param == "all queued":
            connection.execute(
                "insert into pgqueue.jobs (task, queue) select 'x', 'y' "
                "from generate_series(1, 10000)"
            )
        if request.param != "none":
            connection.execute("analyze pgqueue.jobs")
        for place in ("email", "tenant:noisy"):
            params = {"tenant": "noisy", "place": place, "count": NOISY // 2}
            connection.execute(BLOCKED, params)
        for n in range(TENANTS):
            connection.execute(BLOCKED, {"tenant": f"t{n}", "place": "email", "count": 3})
        yield connection


def _read(connection: psycopg.Connection[Any], text: str, params: Any = None) -> int:
    """Pages that the statement read."""
    with connection.transaction():
        connection.execute("set local enable_seqscan = off")
        connection.execute("set local plan_cache_mode = force_generic_plan")
        ((plan,),) = connection.execute(
            "explain (format json, analyze, buffers, timing off) " + text, params, prepare=True
        ).fetchall()
    found = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


def test_a_pass_reads_as_much_for_a_long_line_as_for_a_short_one(
    noisy: psycopg.Connection[Any],
) -> None:
    admit = "select * from pgqueue.admit('{email}', 0, '', 15)"
    _read(noisy, admit)  # and lets five in
    assert noisy.execute("select count(*) from pgqueue.jobs where admitted_seq > 0").fetchone() == (
        5,
    )
    # The table and its indexes have over a thousand. A head or two go to the line of another limit.
    assert _read(noisy, admit) < 200
    noisy.execute("delete from pgqueue.jobs where admitted_seq > 0")
    assert _read(noisy, admit) < 400  # five tenants' heads, and five rows written
    tenants = noisy.execute(
        "select count(distinct tenant) from pgqueue.jobs where admitted_seq > 0"
    )
    assert tenants.fetchone() == (5,)


def test_the_look_for_something_to_do_reads_a_few_entries(
    noisy: psycopg.Connection[Any], pgq: PgQueue
) -> None:
    assert _read(noisy, pgq.sql["look_around"], {"lowest": 0}) < 30


def test_a_claim_of_admitted_jobs_reads_those_alone(
    noisy: psycopg.Connection[Any], pgq: PgQueue
) -> None:
    noisy.execute("select * from pgqueue.admit('{email}', 0, '', 15)")
    params = {
        "queues": "{}",
        "tasks": "{send}",
        "worker_id": 1,
        "lease": 7,
        "n": 10,
        "lowest": 0,
        "suspects": True,
    }
    assert _read(noisy, pgq.sql["claim_limited"], params) < 200
    running = "select count(*) from pgqueue.jobs where state = 'running'"
    assert noisy.execute(running).fetchone() == (5,)

"""What waits is told at a bounded cost."""

from __future__ import annotations

import psycopg

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.statistics import find_statistics
from proving import rows


def queue(url: str, count: int) -> None:
    rows(
        url,
        "insert into pgqueue.jobs (task, queue) select 'made', 'default' "
        "from generate_series(1, %s)",
        [count],
    )


def test_up_to_10000_queued_jobs_are_counted(pgq: PgQueue, database: str) -> None:
    queue(database, 10_000)
    with connect(database) as connection:
        found = run(connection, find_statistics(pgq.sql))
    assert (found.queued, found.queued_is_exact) == (10_000, True)


def test_more_are_estimated(pgq: PgQueue, database: str) -> None:
    queue(database, 12_000)
    rows(database, "analyze pgqueue.jobs")
    with connect(database) as connection:
        found = run(connection, find_statistics(pgq.sql))
    assert (found.queued, found.queued_is_exact) == (12_000, False)


def test_the_count_never_reads_the_whole_table_whatever_the_planner_believes(
    pgq: PgQueue, database: str
) -> None:
    # The planner believes that the table is as small as it was.
    rows(database, "analyze pgqueue.jobs")
    queue(database, 50_000)
    with psycopg.connect(database) as connection:
        connection.execute(pgq.sql["count_by_index"])
        plan = connection.execute("explain " + pgq.sql["find_statistics"]).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "using jobs_claim on jobs" in text
    assert "Seq Scan on jobs" not in text
    assert "Sort" not in text

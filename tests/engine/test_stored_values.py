"""What a plain insert may leave in the table: nothing that a worker could not read."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime

import psycopg
import pytest

from pgqueue import PgQueue
from proving import rows, states, value

TIMES = ("run_at", "scheduled_at", "created_at", "expires_at")
UNREADABLE = ("infinity", "-infinity", "20000-01-01", "9999-12-31 23:59:59 UTC", "0044-03-15 BC")


@pytest.mark.parametrize("column", TIMES)
@pytest.mark.parametrize("at", UNREADABLE)
def test_a_time_that_python_cannot_read_is_refused(database: str, column: str, at: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(
            database,
            f"insert into pgqueue.jobs (task, queue, {column}) values ('t', 'q', %s)",  # noqa: S608 - a name of ours
            [at],
        )


@pytest.mark.parametrize("timeout", ["NaN", "infinity", "0", "-1"])
def test_a_timeout_that_cannot_be_waited_for_is_refused(database: str, timeout: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(
            database,
            "insert into pgqueue.jobs (task, queue, timeout) values ('t', 'q', %s)",
            [timeout],
        )


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT+12", "Pacific/Kiritimati"])
async def test_the_first_and_the_last_time_of_the_table_can_be_read_in_every_zone(
    database: str, pgq: PgQueue, zone: str
) -> None:
    rows(
        database,
        "insert into pgqueue.jobs (task, queue, run_at, scheduled_at, expires_at) values "
        "('noop', 'default', '0001-01-02 UTC', '9999-12-30 UTC', '9999-12-30 UTC')",
    )
    rows(
        database,
        f"alter database {value(database, 'select current_database()')} set timezone = '{zone}'",
    )

    @pgq.task
    async def noop() -> None: ...

    await asyncio.wait_for(pgq.worker(burst=True, scheduler=False).run(), 30)
    assert states(database) == {"completed": 1}
    job = pgq.get_job(value(database, "select id from pgqueue.finished_jobs"))
    assert job.run_at == datetime(1, 1, 2, tzinfo=UTC)
    assert job.scheduled_at == job.expires_at == datetime(9999, 12, 30, tzinfo=UTC)


def test_the_longest_unique_key_fits_into_its_index_with_the_longest_scope(
    database: str, pgq: PgQueue
) -> None:
    """Random signs: what compresses well would fit in any case."""
    task = pgq.task(name=secrets.token_hex(100))(lambda: None)
    keyed = task.using(
        queue=secrets.token_hex(50),
        tenant=secrets.token_hex(100),
        unique_key=secrets.token_hex(1000),
        unique_scope=("task", "queue", "tenant"),
        unique_for=3600,
    )
    job = keyed.enqueue()
    assert keyed.enqueue().id == job.id
    assert value(database, "select octet_length(key) from pgqueue.unique_keys") == 2521
    longest = secrets.token_hex(1300)
    first, again = (
        value(
            database,
            "select pgqueue.enqueue('t', unique_key => %s, unique_for => '1 hour')",
            [longest],
        )
        for _ in range(2)
    )
    assert first == again

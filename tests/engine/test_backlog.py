"""Back-pressure: producers can ask how much waits, and are refused when it is too much."""

from __future__ import annotations

import pytest

from pgqueue import Limit, PgQueue, TooManyJobs
from pgqueue.engine import backlog
from pgqueue.tasks.task import Task
from proving import rows, value


@pytest.fixture
def noop(pgq: PgQueue) -> Task[None]:
    @pgq.task(name="noop", queue="mail")
    def noop() -> None: ...

    return noop


def _bound(pgq: PgQueue, most: int | None) -> None:
    pgq.set_max_queued("mail", most)


def test_the_backlog_is_what_waits_of_one_queue(pgq: PgQueue, noop: Task[None]) -> None:
    noop.enqueue_many([{}] * 3)
    noop.using(delay=60).enqueue()
    noop.using(queue="other").enqueue()

    @pgq.task(queue="mail", limits=[Limit("one", running=1)])
    def limited() -> None: ...

    limited.enqueue()
    assert pgq.backlog("mail") == 5
    assert pgq.backlog("nobody-knows") == 0


def test_a_full_queue_refuses_with_the_figure(pgq: PgQueue, noop: Task[None]) -> None:
    _bound(pgq, 3)
    ids = [noop.enqueue().id for _ in range(3)]
    with pytest.raises(TooManyJobs) as caught:
        noop.enqueue()
    assert caught.value.limit == 3
    assert str(caught.value) == (
        "queue 'mail' has 3 jobs waiting, and 3 is the most it takes: try again when some have run"
    )
    pgq.cancel(*ids)
    with pytest.raises(TooManyJobs):
        noop.enqueue()  # known for a second


def test_what_a_producer_knows_is_a_second_old_at_most(
    pgq: PgQueue, noop: Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _bound(pgq, 1)
    job = noop.enqueue()
    with pytest.raises(TooManyJobs):
        noop.enqueue()
    pgq.cancel(job.id)
    monkeypatch.setattr(backlog, "FRESH", 0.0)
    noop.enqueue()


def test_many_at_once_are_refused_as_a_whole(pgq: PgQueue, noop: Task[None], database: str) -> None:
    _bound(pgq, 5)
    noop.enqueue()
    with pytest.raises(TooManyJobs, match="has 1 jobs waiting, and 5"):
        noop.enqueue_many([{}] * 10)
    assert value(database, "select count(*) from pgqueue.jobs") == 1


async def test_async_producers_are_refused_too(pgq: PgQueue, noop: Task[None]) -> None:
    await pgq.aset_max_queued("mail", 1)
    await noop.aenqueue()
    with pytest.raises(TooManyJobs):
        await noop.aenqueue()
    assert await pgq.abacklog("mail") == 1
    await pgq.pools.aclose()


def test_a_producer_in_a_transaction_is_refused_too(
    pgq: PgQueue, noop: Task[None], database: str
) -> None:
    _bound(pgq, 1)
    noop.enqueue()
    with pgq.connection() as connection, connection.transaction(), pytest.raises(TooManyJobs):
        noop.using(connection=connection).enqueue()
    assert value(database, "select count(*) from pgqueue.jobs") == 1


@pytest.mark.parametrize("options", [{"unique_key": "k"}, {"tenant": "acme"}])
def test_jobs_with_keys_or_tenants_are_refused_by_the_database(
    database: str, noop: Task[None], pgq: PgQueue, options: dict[str, str]
) -> None:
    noop.enqueue()
    _bound(PgQueue(database), 1)
    with pytest.raises(TooManyJobs, match=r"queue 'mail' is full: 1 jobs may wait in it, and as"):
        noop.using(**options).enqueue()


def test_the_bound_holds_for_sql_and_can_be_taken_away(
    database: str, pgq: PgQueue, noop: Task[None]
) -> None:
    _bound(pgq, 0)
    enqueue = "select pgqueue.enqueue('noop', queue => 'mail')"
    with pytest.raises(Exception, match="queue 'mail' is full: 0 jobs may wait"):
        rows(database, enqueue)
    _bound(pgq, None)
    rows(database, enqueue)
    changes = "select details ->> 'max_queued' from pgqueue.audit_log order by id"
    assert rows(database, changes) == [("0",), (None,)]


def test_a_queue_without_a_bound_costs_no_statement(pgq: PgQueue, noop: Task[None]) -> None:
    asked: list[str] = []
    noop.enqueue()
    with pgq.connection() as connection:
        execute = connection.cursor_factory.execute

        class Cursor(connection.cursor_factory):  # type: ignore[misc, name-defined]  # of this one
            def execute(self, query, *args, **kwargs):  # type: ignore[no-untyped-def]  # as it is
                asked.append(str(query))
                return execute(self, query, *args, **kwargs)

        connection.cursor_factory = Cursor
        for _ in range(20):
            noop.using(connection=connection).enqueue()
    assert not [query for query in asked if "max_queued" in query and "pg_notify" not in query]

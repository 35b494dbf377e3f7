"""Events and waits that meet, step by step: no wake-up is lost, whoever comes first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
import pytest
from waiting_rig import Hands, run_alone

from pgqueue import ConfigError, PgQueue
from pgqueue.db.run import Steps, _answer, run
from pgqueue.engine.steps import deliver_events
from pgqueue.errors import LeaseLost
from proving import blocked_on, rows, until, value

T = TypeVar("T")


def test_an_event_whose_transaction_is_open_while_its_waiter_looks_is_delivered(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    with psycopg.connect(database) as emitter:
        pgq.emit("paid", 7, 1, connection=emitter)
        assert not hands.wait().is_over
        assert run_alone(database)[0] == 0
    assert run_alone(database) == (1, False, False)
    assert hands.wait().result == 1


def test_a_wait_stands_before_its_job_looks_for_the_event(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    with psycopg.connect(database, autocommit=True) as connection:
        steps = hands.book.wait(hands.job.id, 5, "paid:7", "paid", "7", None)
        opened = _answer(connection, next(steps))
        # Whatever happens between the two, and however long that takes.
        pgq.emit("paid", 7, 1)
        assert run_alone(database) == (1, False, False)
        assert run(connection, _on(steps, opened)).result == 1


def _on(steps: Steps[T], reply: Any) -> Steps[T]:
    """The rest of a verb, after the reply to what it asked."""
    try:
        asked = steps.send(reply)
        while True:
            try:
                reply = yield asked
            except psycopg.Error as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def test_an_emitter_with_a_snapshot_older_than_the_wait_wakes_it(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    with psycopg.connect(database) as emitter:
        emitter.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        emitter.execute("select count(*) from pgqueue.job_steps")
        assert not hands.wait().is_over
        pgq.emit("paid", 7, 1, connection=emitter)
    assert run_alone(database)[0] == 1


def test_an_event_that_is_delivered_while_the_handler_is_left_lets_the_job_run_at_once(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    pgq.emit("paid", 7, 1)
    assert run_alone(database)[0] == 1
    with psycopg.connect(database) as writer:
        hands.put_back(writer)
    assert hands.is_due


def test_an_event_that_comes_while_the_job_is_put_back_is_delivered_after(
    database: str, pgq: PgQueue
) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    with psycopg.connect(database) as writer:
        hands.put_back(writer)
        pgq.emit("paid", 7, 1)
        assert run_alone(database) == (0, True, True), "the row is held: nobody waits for it"
    assert not hands.is_due
    assert run_alone(database) == (1, False, False)
    assert hands.is_due


def test_a_writer_that_meets_a_delivery_tries_again(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    assert not hands.wait().is_over
    pgq.emit("paid", 7, 1)
    with psycopg.connect(database) as deliverer, psycopg.connect(database) as writer:
        assert run(deliverer, deliver_events(pgq.sql)).woken == 1
        hands.put_back(writer)
        writer.commit()
        assert value(database, "select state from pgqueue.jobs") == "running", "it was skipped"
        deliverer.commit()
        hands.put_back(writer)
    assert hands.is_due


def test_an_event_and_the_end_of_a_wait_exclude_each_other(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait(timeout=0.0)
    pgq.emit("paid", 7, 1)
    assert run_alone(database)[0] == 0
    standing = hands.wait(timeout=0.0)
    assert (standing.is_over, standing.has_come) == (True, False)


def test_two_deliveries_at_once_bring_an_event_once(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait()
    pgq.emit("paid", 7, 1)
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        woken = [run(one, deliver_events(pgq.sql)).woken for one in (first, second)]
    assert woken == [1, 0]


def test_two_waits_of_a_job_for_the_same_event_do_not_both_get_it(
    database: str, pgq: PgQueue
) -> None:
    """A handler looks for the second of them while a delivery that is not committed fills one."""
    hands = Hands(database, pgq)
    hands.wait()
    with (
        psycopg.connect(database, autocommit=True) as handler,
        psycopg.connect(database) as deliverer,
        ThreadPoolExecutor() as threads,
    ):
        steps = hands.book.wait(hands.job.id, 5, "paid:7#2", "paid", "7", None)
        opened = _answer(handler, next(steps))
        pgq.emit("paid", 7, 1)
        assert run(deliverer, deliver_events(pgq.sql)).woken == 1
        looking = threads.submit(run, handler, _on(steps, opened))
        until(lambda: looking.done() or blocked_on(database, deliverer.info.backend_pid))
        deliverer.commit()
        second = looking.result(timeout=20)
        assert [hands.wait().is_over, second.is_over].count(True) == 1
        pgq.emit("paid", 7, 2)
        assert run_alone(database)[0] == 1
    results = "select result from pgqueue.job_steps where kind = 'wait' order by result"
    assert rows(database, results) == [(1,), (2,)]


def test_a_zombie_neither_waits_nor_sleeps(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    rows(database, "update pgqueue.jobs set lease = 6")
    with pytest.raises(LeaseLost):
        hands.wait()
    with psycopg.connect(database, autocommit=True) as connection, pytest.raises(LeaseLost):
        run(connection, hands.book.sleep(hands.job.id, 5, "sleep", 5.0, None))
    assert value(database, "select count(*) from pgqueue.job_steps") == 0


def test_a_wait_that_was_for_another_event_is_told(database: str, pgq: PgQueue) -> None:
    hands = Hands(database, pgq)
    hands.wait()
    steps = hands.book.wait(hands.job.id, 5, "paid:7", "shipped", "7", None)
    message = (
        "wait 'paid:7' was for event 'paid' of '7' in an earlier try, and is for 'shipped' of '7' "
        "now: give each wait a name of its own"
    )
    with (
        psycopg.connect(database, autocommit=True) as connection,
        pytest.raises(ConfigError, match=f"^{message}$"),
    ):
        run(connection, steps)


def test_a_delivery_of_many_waiters_goes_on_where_it_stopped(database: str, pgq: PgQueue) -> None:
    rows(
        database,
        "with made as (insert into pgqueue.jobs (task, queue, run_at) select 'many', 'default', "
        "pgqueue.clock() + interval '1 hour' from generate_series(1, 1200) returning id) "
        "insert into pgqueue.job_steps (job_id, kind, name, attempt, event, event_key) "
        "select id, 'wait', 'w', 1, 'paid', '7' from made",
    )
    pgq.emit("paid", 7)
    assert [run_alone(database) for _ in range(3)] == [
        (500, True, True),
        (500, True, True),
        (200, False, False),
    ]
    due = "select count(*) from pgqueue.jobs where run_at <= clock_timestamp()"
    assert value(database, due) == 1200


def test_no_delivery_reads_a_whole_table(database: str, pgq: PgQueue) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("events", "job_steps"):
            connection.execute(f"alter table pgqueue.{table} set (autovacuum_enabled = off)")
            connection.execute(f"analyze pgqueue.{table}")
        connection.execute(
            "insert into pgqueue.events (name, key, delivered_at) "
            "select 'paid', n::text, now() from generate_series(1, 20000) as n"
        )
        connection.execute(
            "insert into pgqueue.job_steps (job_id, kind, name, attempt, event, event_key, "
            "finished_at) select n, 'wait', 'w', 1, 'paid', n::text, now() "
            "from generate_series(1, 20000) as n"
        )
        hands = Hands(database, pgq)
        hands.wait()
        pgq.emit("paid", 7, 1)
        scans = "select sum(seq_scan) from pg_stat_xact_user_tables where relname in (%s, %s)"
        with connection.transaction():
            assert run(connection, deliver_events(pgq.sql)).woken == 1
            counted = connection.execute(scans, ["events", "job_steps"]).fetchone()
    assert counted == (0,)


def test_a_wait_does_not_read_the_events_from_before_its_job(database: str, pgq: PgQueue) -> None:
    """A key that is told of all day long."""
    rows(
        database,
        "insert into pgqueue.events (name, key, created_at, delivered_at) "
        "select 'paid', '7', now() - n * interval '1 second', now() "
        "from generate_series(1, 20000) as n",
    )
    hands = Hands(database, pgq)
    pgq.emit("paid", 7, 1)
    read = (
        "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'events'"
    )
    with psycopg.connect(database) as connection:
        assert hands.wait(connection).result == 1
        counted = connection.execute(read).fetchone()
    assert counted is not None
    assert counted[0] < 10

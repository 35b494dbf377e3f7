"""Maintenance has no leader: whoever takes a chore does it, and nobody does it twice at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import Statement, Steps, run
from pgqueue.engine.chores import Holder, Offer, finish_chore, hasten_chore, held, take_chore
from pgqueue.errors import ChoreLost
from pgqueue.events import DutyFailed
from pgqueue.worker.chores import Chore, Chores
from pgqueue.worker.link import Link
from proving import Clock, Recorder, rows, value

NAMES = ("rescue", "expiry", "partitions", "retention", "sweep")
CHORES = tuple(Offer(name) for name in NAMES)
ONE, OTHER = Holder(1, hold=10.0), Holder(2, hold=10.0)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as own:
        yield own


def chore(url: str, name: str, columns: str) -> tuple[Any, ...]:
    query = f"select {columns} from pgqueue.chores where name = %s"  # noqa: S608 - the test's own
    return rows(url, query, [name])[0]


def test_each_chore_is_taken_by_one_of_8_workers_that_look_at_once(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    barrier = threading.Barrier(8)

    def look(number: int) -> list[str]:
        mine = []
        with connect(database) as own:
            barrier.wait()
            for _ in range(2 * len(CHORES)):
                taken = run(own, take_chore(pgq.sql, CHORES, Holder(number, hold=10.0)))
                mine += [taken.name] if taken.name else []
        return mine

    with ThreadPoolExecutor(8) as threads:
        taken = [name for mine in threads.map(look, range(1, 9)) for name in mine]
    assert sorted(taken) == sorted(NAMES)


def test_a_chore_that_is_due_waits_for_nobody_who_is_in_the_middle_of_taking_another(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    clock.move(days=1)
    with psycopg.connect(database) as slow:
        slow.execute("update pgqueue.chores set taken_by = 7 where name <> 'sweep'")
        connection.execute("set lock_timeout = '1ms'")
        assert run(connection, take_chore(pgq.sql, CHORES, ONE)).name == "sweep"
        slow.rollback()


def test_a_chore_comes_again_after_its_interval(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    clock.move(days=1)
    assert run(connection, take_chore(pgq.sql, [Offer("expiry")], ONE)).name == "expiry"
    assert run(connection, finish_chore(pgq.sql, "expiry", ONE, 0.25, "no luck"))
    facts = chore(database, "expiry", "last_run_at, last_seconds, last_error, taken_by")
    assert facts == (clock.at, 0.25, "no luck", None)
    taken = run(connection, take_chore(pgq.sql, [Offer("expiry")], OTHER))
    assert (taken.name, taken.wait) == (None, 15.0)
    clock.move(seconds=15)
    assert run(connection, take_chore(pgq.sql, [Offer("expiry")], OTHER)).name == "expiry"


def test_a_taker_that_dies_loses_the_chore_when_its_hold_is_over(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    with connect(database) as dying:
        assert run(dying, take_chore(pgq.sql, [Offer("rescue")], ONE)).name == "rescue"
        pid = dying.info.backend_pid
        assert value(database, "select pg_terminate_backend(%s)", [pid])
    with connect(database) as living:
        waiting = run(living, take_chore(pgq.sql, [Offer("rescue")], OTHER))
        assert (waiting.name, waiting.wait) == (None, 10.0)
        clock.move(seconds=10)
        assert run(living, take_chore(pgq.sql, [Offer("rescue")], OTHER)).name == "rescue"


def test_who_lost_a_chore_can_neither_finish_nor_go_on_with_it(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    clock.move(days=1)
    run(connection, take_chore(pgq.sql, [Offer("sweep")], ONE))
    clock.move(seconds=11)
    run(connection, take_chore(pgq.sql, [Offer("sweep")], OTHER))
    assert not run(connection, finish_chore(pgq.sql, "sweep", ONE, 11.0))
    assert chore(database, "sweep", "taken_by, last_run_at") == (2, None)
    done: list[int] = []

    def work() -> Steps[None]:
        for number in range(10):
            yield Statement("select 1")
            done.append(number)

    seconds = iter(range(0, 100, 3))
    with pytest.raises(ChoreLost):
        run(connection, held(pgq.sql, "sweep", ONE, work(), lambda: next(seconds)))
    assert done == []


def test_a_long_chore_is_held_anew_between_its_statements(
    pgq: PgQueue, database: str, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    clock.move(days=1)
    run(connection, take_chore(pgq.sql, [Offer("sweep")], ONE))
    began = clock.at

    def work() -> Steps[str]:
        for _ in range(5):
            clock.move(seconds=6)
            yield Statement("select 1")
        return "done"

    def passed() -> float:
        return (clock.at - began).total_seconds()

    assert run(connection, held(pgq.sql, "sweep", ONE, work(), passed)) == "done"
    assert run(connection, take_chore(pgq.sql, [Offer("sweep")], OTHER)).name is None


def test_an_operator_may_let_a_chore_come_now(
    pgq: PgQueue, clock: Clock, connection: psycopg.Connection[Any]
) -> None:
    clock.move(days=1)
    run(connection, take_chore(pgq.sql, [Offer("partitions")], ONE))
    run(connection, finish_chore(pgq.sql, "partitions", ONE, 0.0))
    assert run(connection, take_chore(pgq.sql, [Offer("partitions")], ONE)).name is None
    run(connection, hasten_chore(pgq.sql, "partitions"))
    assert run(connection, take_chore(pgq.sql, [Offer("partitions")], ONE)).name == "partitions"


class Fleet:
    """Workers' chores without the rest of the workers."""

    def __init__(self, pgq: PgQueue, database: str) -> None:
        self._pgq = pgq
        self._database = database
        self.link = Link("upkeep", lambda: database)
        self.hurried: list[int] = []

    def member(self, *chores: Chore, number: int = 1) -> Chores:
        return Chores(
            chores,
            sql=self._pgq.sql,
            link=self.link,
            conninfo=lambda: self._database,
            worker_id=lambda: number,
            hold=10.0,
            heartbeat_timeout=9.0,
            hurry=lambda: self.hurried.append(number),
        )


def counting(name: str, done: list[str], *, more: bool = False, **rest: Any) -> Chore:
    def steps(_: Link) -> Steps[bool]:
        yield Statement("select 1")
        done.append(name)
        return more

    return Chore(name=name, steps=steps, **rest)


async def test_a_turn_does_what_is_due_and_says_when_to_look_again(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    fleet, done = Fleet(pgq, database), list[str]()
    member = fleet.member(counting("rescue", done, at_most=0.5), counting("expiry", done))
    await member.turn()
    wait = await member.turn()
    await fleet.link.close()
    assert sorted(done) == ["expiry", "rescue"]
    assert 0.5 <= wait <= 0.55
    due_in = "extract(epoch from due_at - pgqueue.clock())::float"
    assert chore(database, "rescue", due_in) == (0.5,)


async def test_a_chore_with_more_to_do_comes_again_at_once_after_the_others(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    fleet, done = Fleet(pgq, database), list[str]()
    member = fleet.member(counting("expiry", done, more=True), counting("rescue", done))
    assert await member.turn() == 0.0
    assert set(done) == {"expiry", "rescue"}
    assert chore(database, "expiry", "due_at") == (clock.at,)
    await fleet.link.close()


async def test_a_chore_that_fails_is_told_and_comes_again(
    pgq: PgQueue, database: str, clock: Clock, recorder: Recorder
) -> None:
    clock.move(days=1)
    fleet, done = Fleet(pgq, database), list[str]()

    def fails(_: Link) -> Steps[bool]:
        yield Statement("select 1 / 0")
        return False

    member = fleet.member(Chore(name="sweep", steps=fails), counting("expiry", done))
    await member.turn()
    assert done == ["expiry"]
    assert "DivisionByZero" in chore(database, "sweep", "last_error")[0]
    assert [event.duty for event in recorder.of(DutyFailed)] == ["sweep"]
    clock.move(minutes=1)
    await member.turn()
    assert len(recorder.of(DutyFailed)) == 2
    await fleet.link.close()


async def test_a_role_that_does_not_own_the_tables_is_told_of_pgq_prune(
    pgq: PgQueue, database: str, clock: Clock, recorder: Recorder
) -> None:
    clock.move(days=1)
    fleet = Fleet(pgq, database)
    rows(
        database,
        "do $$ begin create role chores_guest; exception when duplicate_object then null; end $$",
    )
    rows(database, "grant usage on schema pgqueue to chores_guest")
    rows(database, "grant all on all tables in schema pgqueue to chores_guest")

    def as_guest(_: Link) -> Steps[bool]:
        yield Statement("set role chores_guest")
        try:
            yield Statement("drop table pgqueue.finished_jobs")
        except psycopg.Error:
            yield Statement("reset role")
            raise
        return False

    await fleet.member(Chore(name="retention", steps=as_guest)).turn()
    (told,) = recorder.of(DutyFailed)
    assert "let their owner run `pgq prune`" in told.reason
    await fleet.link.close()


async def test_a_slow_chore_does_not_hold_up_the_others(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    fleet, done = Fleet(pgq, database), list[str]()
    with psycopg.connect(database) as blocker:
        blocker.execute("lock table pgqueue.job_logs")

        def waits(_: Link) -> Steps[bool]:
            yield Statement("select count(*) from pgqueue.job_logs")
            done.append("retention")
            return False

        slow = Chore(name="retention", steps=waits, slow=True)
        member = fleet.member(slow, counting("rescue", done), counting("sweep", done, slow=True))
        await member.turn()
        assert done == ["rescue"]
        blocker.rollback()
    await member.close()
    # One slow chore at a time: the other one is left to the rest of the fleet.
    assert done == ["rescue", "retention"]
    assert chore(database, "retention", "taken_by, last_error") == (None, None)
    await fleet.link.close()


async def test_a_chore_that_is_not_allowed_here_is_left_to_others(
    pgq: PgQueue, database: str, clock: Clock
) -> None:
    clock.move(days=1)
    fleet, done = Fleet(pgq, database), list[str]()
    unsteady = fleet.member(counting("rescue", done, allowed=lambda: False))
    assert await unsteady.turn() > 0
    assert done == []
    await fleet.member(counting("rescue", done), number=2).turn()
    assert done == ["rescue"]
    await fleet.link.close()

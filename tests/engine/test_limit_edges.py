"""Limits in corners: names that fit two patterns, crowds of newcomers, crashes, stray names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from admitting import fail_and_hold, let_in, lines, sending
from endings import end, run_on, worker
from pgqueue import Limit, Order, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.cancel import end_marked
from pgqueue.engine.limits import Pass, Place, admit
from pgqueue.engine.sweep import sweep
from proving import Clock, rows, value

RULE = "select running, starts from pgqueue.limit_rule(%s)"


def _crowd(pgq: PgQueue, **options: Any) -> None:
    """More newcomers than one pass takes in, and all before others."""
    task = pgq.task(name="other", limits=[Limit("crowd", running=0)])(_other)
    task.using(priority=9, **options).enqueue_many([{"n": n} for n in range(250)])


def _other(n: int) -> None: ...


def test_a_name_that_fits_two_patterns_goes_by_the_one_that_says_more_of_it(
    database: str, pgq: PgQueue
) -> None:
    sending(
        pgq, Limit("to:{customer}", starts=10, per=1), Limit("to:{customer}:now", running=3)
    ).enqueue(customer="a")
    assert value(database, "select limits from pgqueue.jobs") == ["to:a", "to:a:now"]
    assert rows(database, RULE, ["to:a"]) == [(None, 10)]
    assert rows(database, RULE, ["to:a:now"]) == [(3, None)]


@pytest.mark.parametrize("customer", ["%", "_", "a%", "\\", "a\nb", "{n}", "ü" * 100])
def test_a_value_is_never_read_as_a_pattern(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], customer: str
) -> None:
    send = sending(pgq, Limit("to_%:{customer}", running=1), Limit("to__:{n}", running=5))
    send.enqueue_many([{"customer": customer}] * 2)
    send.enqueue(customer="plain")
    assert passing().admitted == 2
    assert rows(database, RULE, ["to_%:" + customer]) == [(1, None)]
    assert rows(database, RULE, ["toX%:" + customer]) == [(None, None)]


def test_a_job_keeps_its_place_in_an_order_behind_a_crowd_of_newcomers(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by="customer:{customer}")
    _crowd(pgq)
    first = send.enqueue(customer="a").id
    second = send.using(priority=9, tenant="x").enqueue(customer="a").id
    for _ in range(8):
        passing(tasks=("send", "other"))
        assert let_in(database) in ([], [first])
    assert let_in(database) == [first]
    end(database, first)
    passing("ordered:customer:a", tasks=("send", "other"))
    assert let_in(database) == [second]


def test_a_held_order_waits_for_its_retried_job_behind_a_crowd_of_newcomers(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, _ = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    _crowd(pgq)
    assert pgq.retry(first).retried == (first,)
    for _ in range(8):
        passing(tasks=("send", "other"))
        assert let_in(database) in ([], [first])
    assert let_in(database) == [first]


def test_a_limit_that_was_reset_is_not_exceeded_by_whom_it_had_let_in(
    pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue_many([{"n": n} for n in range(9)])
    pgq.set_limit("email", running=4)
    assert passing().admitted == 4
    assert pgq.reset_limit("email")
    assert pgq.check_limits() == []
    (usage,) = pgq.limits("email")
    assert (usage["running"], usage["until"], usage["free"]) == (1, None, 0)
    assert not pgq.reset_limit("email")


def test_a_limit_that_no_code_has_is_listed_no_more_after_its_reset(pgq: PgQueue) -> None:
    pgq.set_limit("email", running=4)
    pgq.set_limit("queue:mail", running=4)
    assert [usage["name"] for usage in pgq.limits()] == ["email", "queue:mail"]
    assert pgq.reset_limit("email")
    assert pgq.reset_limit("queue:mail")
    assert pgq.limits() == []
    pgq.set_limit("email", running=5)
    assert [usage["running"] for usage in pgq.limits()] == [5]


def test_a_queues_limit_counts_what_other_limits_had_let_in_before(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=3), queue="mail")
    send.enqueue_many([{"n": n} for n in range(3)])
    worker_id = worker(database)
    assert passing().admitted == 3
    for job_id in let_in(database)[:2]:
        run_on(database, job_id, worker_id)
    pgq.set_limit("queue:mail", running=4)
    pgq.task(name="other", queue="mail")(_other).enqueue_many([{"n": n} for n in range(5)])
    assert passing(tasks=("send", "other")).admitted == 1
    assert passing(tasks=("send", "other")).admitted == 0


def test_a_place_from_before_a_crash_of_the_server_hides_nobody(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    # Admissions are not durable: after a crash, or on a standby, their numbers begin again lower.
    ids = sending(pgq, Limit("email", running=2)).enqueue_many([{"n": n} for n in range(6)])
    assert passing().admitted == 2
    passed = passing(place=Place(1_000_000))
    assert (passed.admitted, passed.lowest) == (0, 1)
    assert let_in(database) == ids[:2]


@pytest.mark.parametrize("name", ["", "@new", "@queue:mail", " x", "{customer}", "é"])
def test_a_name_that_cannot_be_one_is_refused_from_sql_too(database: str, name: str) -> None:
    query = "select pgqueue.enqueue_v1('send', '{\"customer\": \"@run_at\"}', limits => %s)"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is not valid"):
        rows(database, query, [[name]])


def test_a_pass_does_not_wait_for_a_hold_that_somebody_just_writes(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, ordered_by=Order("customer:{customer}", on_failure="hold"))
    first, second = (send.enqueue(customer="a").id for _ in range(2))
    passing()
    fail_and_hold(database, pgq, first)
    assert pgq.retry(first).retried == (first,)
    with psycopg.connect(database) as other:
        other.execute("update pgqueue.order_holds set job_id = job_id")
        with connect(database) as connection:
            connection.execute("set lock_timeout = '2s'")
            run(connection, admit(pgq.sql, (), Place(), 15.0))
    assert second not in let_in(database)


def test_a_job_that_came_back_marked_to_be_cancelled_waits_for_no_limit(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    ids = sending(pgq, Limit("email", running=1)).enqueue_many([{"n": n} for n in range(3)])
    # Its worker gave it back before it saw the mark.
    rows(database, "update pgqueue.jobs set cancel_requested_at = now() where id = %s", [ids[1]])
    assert passing().admitted == 1
    assert lines(database) == {"email": 1, "@cancel": 1}
    assert pgq.why(ids[1])[0].cause == "cancel-requested"
    with connect(database) as connection:
        assert run(connection, end_marked(pgq.sql)) == 1
        assert run(connection, end_marked(pgq.sql)) == 0
    assert pgq.get_job(ids[1]).state == "cancelled"


def test_a_job_from_sql_stands_in_its_order_wherever_that_is_named(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq)
    query = "select job_id from pgqueue.enqueue_v1('send', limits => '{email, ordered:a}')"
    first, _ = (value(database, query) for _ in range(2))
    assert value(database, "select limits from pgqueue.jobs limit 1") == ["ordered:a", "email"]
    assert passing().admitted == 1
    assert let_in(database) == [first]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="in one order at most"):
        rows(database, "select pgqueue.enqueue_v1('send', limits => '{ordered:a, ordered:b}')")


async def test_async_code_sets_lists_resets_and_checks_limits(
    pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue_many([{"n": n} for n in range(4)])
    await pgq.aset_limit("email", running=2, lasting=60)
    assert passing().admitted == 2
    (usage,) = await pgq.alimits("email")
    assert (usage["running"], usage["used"], usage["waiting"]) == (2, 2, 2)
    assert await pgq.acheck_limits() == []
    assert await pgq.areset_limit("email")
    assert not await pgq.areset_limit("email")
    await pgq.pools.aclose()


def test_many_lines_that_got_room_at_once_are_found_without_a_pause(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("to:{customer}", running=1))
    send.enqueue_many([{"customer": str(n)} for n in range(200)] * 2)
    place = Place()
    while (passed := passing(place=place)).wait == 0:
        place = passed.place
    assert len(let_in(database)) == 200
    pgq.set_limit("to:{customer}", running=2)
    for _ in range(6):
        passed = passing(place=place)
        place = passed.place
        if passed.wait != 0:
            # A slice that came to the end of the lines, and the rest of them is a second away.
            assert place.reached == ""
    assert len(let_in(database)) == 400


def test_lines_that_a_full_pass_did_not_come_to_are_told(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("to:{customer}", running=400))
    send.enqueue_many([{"customer": str(n)} for n in range(3)] * 300)
    rows(
        database,
        "update pgqueue.jobs set blocked_on = 'to:' || (payload ->> 'customer')",
    )
    # Beyond them all, where no slice comes to: only who was named is looked at.
    named, place = ("to:0", "to:1", "to:2"), Place(0, "to:9")
    passed = passing(*named, place=place)
    assert (passed.admitted, passed.reached) == (500, "")
    assert 1 <= len(passed.unseen) <= 2
    assert passing(*passed.unseen, place=place).admitted == 400
    assert passing(*named, place=place).unseen == []


def test_starts_are_kept_as_long_as_their_own_limit_asks_for_them(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    sending(pgq, Limit("daily", starts=9, per=86_400), Limit("api:{n}", starts=9, per=1)).enqueue()
    rows(
        database,
        "insert into pgqueue.limit_starts "
        "select name, pgqueue.clock() from generate_series(1, 3000) as n, "
        "unnest(array['daily', 'api:1', 'api:2', 'of a limit that is gone']) as name",
    )
    clock.move(minutes=11)
    rows(database, "insert into pgqueue.limit_starts values ('api:1', pgqueue.clock())")
    with connect(database) as connection:
        assert run(connection, sweep(pgq.sql)) == 9000
        assert run(connection, sweep(pgq.sql)) == 0
    kept = "select name, count(*) from pgqueue.limit_starts group by 1 order by 1"
    assert rows(database, kept) == [("api:1", 1), ("daily", 3000)]


def test_every_limit_s_starts_are_checked_and_swept_however_many_limits_there_are(
    database: str, pgq: PgQueue, clock: Clock
) -> None:
    sending(pgq, Limit("api:{n}", starts=1, per=5)).enqueue()
    rows(database, "update pgqueue.limits set set_at = pgqueue.clock() - interval '1 hour'")
    rows(
        database,
        "insert into pgqueue.limit_starts "
        "select 'api:' || n, pgqueue.clock() + i * interval '1 second' * (6 - n / 450 * 5) "
        "from generate_series(1, 450) as n, generate_series(1, 2) as i",
    )
    clock.move(minutes=1)
    assert [(one.name, one.found) for one in pgq.check_limits()] == [("api:450", 2)]
    clock.move(minutes=11)
    with connect(database) as connection:
        assert run(connection, sweep(pgq.sql)) == 900


def test_jobs_that_wait_for_another_limit_do_not_keep_out_those_behind_them(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("all", running=10), Limit("to:{customer}", running=1))
    send.enqueue(customer="x")
    passing()
    # They came while `all` was full and `to:x` was not.
    send.enqueue_many([{"customer": "x"}] * 1000)
    rows(database, "update pgqueue.jobs set blocked_on = 'all' where state = 'blocked'")
    behind = send.enqueue(customer="y").id
    for _ in range(8):
        passing()
    assert behind in let_in(database)
    assert len(let_in(database)) == 2
    end(database, let_in(database)[0])
    assert passing("all", "to:x").admitted == 1


def test_tenants_whose_only_job_waits_for_another_limit_do_not_end_a_pass(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("all", running=100), Limit("of:{tenant}", running=1))
    for n in range(40):
        send.using(tenant=f"t{n:02}").enqueue()
    assert passing().admitted == 40
    for n in range(40):
        send.using(tenant=f"t{n:02}").enqueue()
    free = send.using(tenant="t99").enqueue().id
    rows(database, "update pgqueue.jobs set blocked_on = 'all' where state = 'blocked'")
    assert passing().admitted == 1
    assert free in let_in(database)
    assert lines(database) == {f"of:t{n:02}": 1 for n in range(40)}

"""Admission: never more than a limit has room for, tenants by turns, nobody's slot for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from admitting import let_in, lines, sending
from endings import end
from pgqueue import ConfigError, Limit, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import ask, run
from pgqueue.engine.claim import Lane, claim_jobs
from pgqueue.engine.limits import Pass, claim_limited
from proving import Clock, rows, value

ADMIT = "select * from pgqueue.admit('{}', 0, '', 15)"


def test_a_limited_job_is_blocked_until_it_is_let_in(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    job = sending(pgq, Limit("email", running=1)).enqueue()
    assert job.state == "blocked"
    assert passing().admitted == 1
    assert rows(database, "select state, blocked_on from pgqueue.jobs") == [("queued", None)]


def test_never_more_are_let_in_than_there_is_room(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    ids = sending(pgq, Limit("email", running=3)).enqueue_many([{"n": n} for n in range(10)])
    assert [passing().admitted for _ in range(3)] == [3, 0, 0]
    end(database, ids[0])
    assert passing("email").admitted == 1
    assert let_in(database) == ids[1:4]
    assert lines(database) == {"email": 6}


def test_of_several_limits_the_tightest_holds(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=4), Limit("tenant:{tenant}", running=1))
    for tenant in ("a", "a", "a", "b", "b", "c"):
        send.using(tenant=tenant).enqueue()
    assert passing().admitted == 3
    assert (
        value(database, "select count(distinct tenant) from pgqueue.jobs where state='queued'") == 3
    )
    # Without a tenant there is no limit of a tenant.
    send.enqueue_many([{}, {}])
    assert passing().admitted == 1


def test_a_pass_that_was_waited_for_counts_what_the_other_one_let_in(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq, Limit("email", running=5)).enqueue_many([{"n": n} for n in range(20)])
    with psycopg.connect(database) as first, psycopg.connect(database, autocommit=True) as second:
        assert first.execute(ADMIT).fetchone()[1] == 5  # type: ignore[index]
        # While the first one is not committed the second does not count, and so does not let in.
        assert second.execute(ADMIT).fetchone()[:2] == (False, 0)  # type: ignore[index]
        first.commit()
        assert second.execute(ADMIT).fetchone()[:2] == (True, 0)  # type: ignore[index]
    assert len(let_in(database)) == 5


def test_passes_that_start_at_one_instant_let_in_no_more_than_one(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=5))
    for _ in range(10):
        send.enqueue_many([{"n": n} for n in range(20)])
        start, ran = threading.Barrier(4), list[int]()

        def go(start: threading.Barrier = start, ran: list[int] = ran) -> None:
            with psycopg.connect(database, autocommit=True) as connection:
                start.wait()
                ran.append(connection.execute(ADMIT).fetchone()[1])  # type: ignore[index]

        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(ran) == len(let_in(database)) == 5
        rows(database, "delete from pgqueue.jobs")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_pass_that_could_not_see_what_others_let_in_is_refused(database: str, level: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"set transaction isolation level {level}")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction, match="needs read committed"):
            connection.execute(ADMIT)


def test_nothing_but_an_admission_lets_a_limited_job_be_claimed(
    database: str, pgq: PgQueue
) -> None:
    sending(pgq, Limit("email", running=1)).enqueue()
    rows(database, "update pgqueue.jobs set state = 'queued', blocked_on = null")
    lanes = [Lane("default", 5)]
    claims = (
        claim_jobs(pgq.sql, lanes, ["send"], worker_id=1, lease=7, limit=5),
        claim_limited(
            pgq.sql, (), ["send"], worker_id=1, lease=7, limit=5, lowest=0, suspects=True
        ),
    )
    with connect(database) as connection:
        for claim in claims:
            assert run(connection, ask(claim))[0][:2] == (0, None)


def test_tenants_take_turns(database: str, pgq: PgQueue, passing: Callable[..., Pass]) -> None:
    send = sending(pgq, Limit("email", running=2))
    for tenant, count in (("noisy", 30), ("b", 3), ("c", 3), (None, 3)):
        send.using(tenant=tenant).enqueue_many([{"n": n} for n in range(count)])
    order: list[str | None] = []
    while len(order) < 16:
        passing("email")
        for job_id in let_in(database):
            order.append(value(database, "select tenant from pgqueue.jobs where id = %s", [job_id]))
            end(database, job_id)
    assert sorted(str(tenant) for tenant in order[:12]) == sorted(
        [str(tenant) for tenant in ("noisy", "b", "c", None)] * 3
    )
    assert set(order[12:]) == {"noisy"}


def test_turns_go_on_where_they_were_even_when_each_pass_has_room_for_one(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=1))
    for tenant in "abc":
        send.using(tenant=tenant).enqueue_many([{"n": n} for n in range(5)])
    order = ""
    for _ in range(9):
        passing()
        (job_id,) = let_in(database)
        order += value(database, "select tenant from pgqueue.jobs where id = %s", [job_id])
        end(database, job_id)
    assert order == "abcabcabc"


def test_a_line_that_stands_before_a_full_limit_holds_up_no_other_tenant(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=50), Limit("tenant:{tenant}", running=2))
    send.using(tenant="noisy").enqueue_many([{"n": n} for n in range(400)])
    passing()
    send.using(tenant="quiet").enqueue()
    assert passing().admitted == 1
    assert (
        value(database, "select count(*) from pgqueue.jobs where tenant='noisy' and state='queued'")
        == 2
    )


def test_a_tenants_own_line_does_not_pass_by_the_turns_of_a_limit_that_all_share(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    # By name its own line comes first.
    send = sending(pgq, Limit("a:{tenant}", running=4), Limit("mail", running=4))
    send.using(tenant="noisy").enqueue_many([{"n": n} for n in range(40)])
    passing()
    for tenant in ("b", "c", "d"):
        send.using(tenant=tenant).enqueue_many([{"n": n} for n in range(6)])
    passing()
    for job_id in let_in(database):
        end(database, job_id)
    passing("mail", "a:noisy")
    query = "select distinct tenant from pgqueue.jobs where state = 'queued' order by 1"
    assert {"b", "c", "d"} <= {tenant for (tenant,) in rows(database, query)}


def test_jobs_of_a_paused_queue_or_an_unknown_task_hold_no_slot(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=1))
    send.using(queue="quiet").enqueue()
    pgq.pause("quiet")
    assert passing().admitted == 0
    assert lines(database) == {"@queue:quiet": 1}
    send.using(queue="loud").enqueue()
    assert passing(tasks=("other",)).admitted == 0
    assert lines(database) == {"@queue:quiet": 1, "@worker:loud/send": 1}
    assert passing().admitted == 1
    pgq.resume("quiet")
    end(database, let_in(database)[0])
    assert passing("email").admitted == 1


def test_an_admitted_job_that_nobody_claims_gives_its_slot_back(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock() + interval '1 day'")
    first, second = sending(pgq, Limit("email", running=1)).enqueue_many([{}, {}])
    passing()
    assert let_in(database) == [first]
    clock.move(seconds=29)
    passing()
    assert let_in(database) == [first]
    clock.move(seconds=2)
    passing()
    assert let_in(database) == [second]


def test_a_job_for_later_waits_for_its_time_and_then_for_its_limit(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock() + interval '1 day'")
    send = sending(pgq, Limit("email", running=1))
    send.using(delay=60).enqueue()
    passed = passing()
    assert (passed.admitted, round(passed.wait or 0)) == (0, 60)
    assert lines(database) == {"@run_at": 1}
    clock.move(seconds=60)
    assert passing().admitted == 1


def test_a_rate_lets_in_no_more_than_start_in_its_period(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock() + interval '1 day'")
    rows(database, "select pgqueue.make_partitions()")
    ids = sending(pgq, Limit("api", starts=2, per=10)).enqueue_many([{"n": n} for n in range(9)])
    # Admitted and not started counts as well: it may start at any time.
    assert [passing().admitted, passing().admitted] == [2, 0]
    for job_id in ids[:2]:
        rows(database, "insert into pgqueue.limit_starts values ('api', pgqueue.clock())")
        end(database, job_id)
    passed = passing("api")
    assert (passed.admitted, passed.wait) == (0, 1.0)
    clock.move(seconds=9.5)
    passed = passing("api")
    assert (passed.admitted, passed.wait) == (0, 0.5)
    clock.move(seconds=0.5)
    assert passing("api").admitted == 2


def test_an_operators_figure_holds_until_its_time_is_over(
    database: str, pgq: PgQueue, passing: Callable[..., Pass], clock: Clock
) -> None:
    rows(database, "update pgqueue.workers set heartbeat_at = pgqueue.clock() + interval '1 day'")
    send = sending(pgq, Limit("tenant:{tenant}", running=1))
    send.using(tenant="acme").enqueue_many([{"n": n} for n in range(9)])
    send.using(tenant="bolt").enqueue_many([{"n": n} for n in range(9)])
    pgq.set_limit("tenant:acme", running=3, lasting=60)
    assert passing().admitted == 4
    (usage,) = pgq.limits("tenant:acme")
    assert (usage["running"], usage["used"], usage["free"], usage["waiting"]) == (3, 3, 0, 6)
    clock.move(seconds=61)
    (usage,) = pgq.limits("tenant:acme")
    assert (usage["running"], usage["used"], usage["free"]) == (1, 3, 0)
    # It was lowered by time, not exceeded by us.
    assert pgq.check_limits() == []
    target = "select action, target, details ->> 'running' from pgqueue.audit_log"
    assert rows(database, target) == [("limit", "limit tenant:acme", "3")]
    # What is over need not be taken back.
    assert not pgq.reset_limit("tenant:acme")


def test_a_rate_is_lowered_by_its_starts_alone(pgq: PgQueue) -> None:
    send = sending(pgq, Limit("api:{tenant}", starts=10, per=2))
    send.using(tenant="acme").enqueue()
    assert pgq.set_limit("api:acme", starts=3)
    (usage,) = pgq.limits("api:acme")
    assert (usage["starts"], usage["per"]) == (3, 2)
    assert pgq.set_limit("api:{tenant}", starts=4)
    assert not pgq.set_limit("aip:acme", running=1)
    with pytest.raises(ConfigError) as refused:
        pgq.set_limit("aip:acme", starts=3)
    assert str(refused.value) == (
        "limit 'aip:acme' has no rate yet: starts and per belong together, as in starts=10, per=1"
    )


def test_a_queue_can_be_limited_without_code(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    @pgq.task(name="send", queue="mail")
    def send() -> None: ...

    before = send.enqueue()
    assert before.state == "queued"
    pgq.set_limit("queue:mail", running=2)
    send.enqueue_many([{}] * 5)
    assert passing().admitted == 2
    assert lines(database) == {"queue:mail": 4}
    assert pgq.reset_limit("queue:mail")
    assert passing().admitted == 4
    # And those that come after are no business of ours.
    assert send.enqueue().state == "queued"


def test_check_tells_a_limit_that_is_exceeded(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    ids = sending(pgq, Limit("email", running=2), Limit("api", starts=1, per=5)).enqueue_many(
        [{}] * 3
    )
    passing()
    assert pgq.check_limits() == []
    rows(
        database,
        "update pgqueue.jobs set state = 'queued', blocked_on = null, admitted_seq = 1000 + id, "
        "run_at = now()",
    )
    rows(database, "update pgqueue.limits set set_at = now() - interval '1 hour'")
    rows(
        database, "insert into pgqueue.limit_starts select 'api', now() from generate_series(1, 2)"
    )
    too_many, too_fast = pgq.check_limits()
    assert (too_many.name, too_many.allowed, too_many.found) == ("email", 2, 3)
    assert set(too_many.job_ids) == set(ids)
    assert (too_fast.name, too_fast.allowed, too_fast.found, too_fast.per) == ("api", 1, 2, 5.0)


def test_why_names_the_limit_its_holders_and_the_place_in_the_line(
    pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("email", running=2)).using(tenant="acme")
    ids = send.enqueue_many([{"n": n} for n in range(5)])
    (cause,) = pgq.why(ids[4])
    assert cause.cause == "admission"
    passing()
    (cause,) = pgq.why(ids[4])
    assert cause.message == (
        f"limit 'email' has no room: its 2 slots are held by jobs {ids[0]}, {ids[1]}; "
        "2 jobs of tenant 'acme' stand before it in the line"
    )
    assert cause.details["holders"] == ids[:2]


def test_a_job_enqueued_from_sql_has_the_limits_of_its_task(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    sending(pgq, Limit("to:{customer}", running=1), Limit("tenant:{tenant}", running=9)).enqueue()
    rows(database, "select pgqueue.enqueue('send', '{\"customer\": \"x\"}', tenant => 'acme')")
    query = "select limits from pgqueue.jobs order by id desc limit 1"
    assert value(database, query) == ["to:x", "tenant:acme"]


def test_a_replaced_job_is_admitted_anew(
    database: str, pgq: PgQueue, passing: Callable[..., Pass]
) -> None:
    send = sending(pgq, Limit("to:{customer}", running=1))
    job = send.using(unique_key="k").enqueue(customer="a")
    passing()
    again = send.using(unique_key="k", unique_mode="replace").enqueue(customer="b")
    assert (again.id, again.state) == (job.id, "blocked")
    assert value(database, "select limits from pgqueue.jobs") == ["to:b"]
    assert passing().admitted == 1

"""Workers and limits: slots are kept for admitted jobs, and every way back is to the line."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from endings import worker
from pgqueue import Fail, Job, Limit, Order, PgQueue, Retry, Snooze
from pgqueue.engine.limits import Place
from pgqueue.events import JobsAdmitted
from pgqueue.worker.admission import AGAIN_AFTER, Admission
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link
from proving import listening, rows, states, until, value


class Counter:
    """How many run at once, and how many did at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def hold(self, seconds: float) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1


async def _burst(pgq: PgQueue, workers: int = 1) -> None:
    await asyncio.wait_for(
        asyncio.gather(*(pgq.worker(burst=True, concurrency=8).run() for _ in range(workers))), 60
    )


async def test_two_workers_share_a_limit(pgq: PgQueue, database: str) -> None:
    counter = Counter()

    @pgq.task(limits=[Limit("three", running=3)])
    async def work(n: int) -> None:
        await counter.hold(0.01)

    work.enqueue_many([{"n": n} for n in range(30)])
    with listening() as recorder:
        await _burst(pgq, workers=2)
    let_in = recorder.of(JobsAdmitted)
    assert sum(event.count for event in let_in) >= 30
    assert {event.queues for event in let_in} == {("default",)}
    assert states(database) == {"completed": 30}
    assert counter.most == 3
    assert pgq.check_limits() == []


async def test_a_retry_and_a_snooze_free_the_slot_while_they_wait(
    pgq: PgQueue, database: str
) -> None:
    counter = Counter()

    @pgq.task(limits=[Limit("one", running=1)], retry=Retry(attempts=3, delays=[0.05]))
    async def work(job: Job, n: int) -> None:
        await counter.hold(0.005)
        if job.attempt == 1 and n % 2:
            raise OSError
        if n == 0 and value(database, "select count(*) from pgqueue.finished_jobs") < 3:
            raise Snooze(0.05)

    work.enqueue_many([{"n": n} for n in range(6)])
    await _burst(pgq, workers=2)
    assert states(database) == {"completed": 6}
    assert counter.most == 1


async def test_admitted_jobs_and_others_share_a_busy_worker(pgq: PgQueue, database: str) -> None:
    @pgq.task
    async def plain(n: int) -> None:
        await asyncio.sleep(0.005)

    @pgq.task(limits=[Limit("two", running=2)])
    async def limited(n: int) -> None: ...

    plain.enqueue_many([{"n": n} for n in range(3_000)])
    limited.enqueue_many([{"n": n} for n in range(20)])
    await _burst(pgq)
    assert states(database) == {"completed": 3_020}
    # They did not have to wait until nothing else was left.
    later = (
        "select count(*) from pgqueue.finished_jobs where task = 'plain' and started_at > "
        "(select min(started_at) from pgqueue.finished_jobs where task = 'limited')"
    )
    assert value(database, later) > 0


async def test_a_failed_job_holds_its_order_in_the_commit_of_its_end(
    pgq: PgQueue, database: str
) -> None:
    seen: list[int] = []

    @pgq.task(ordered_by=Order("customer:{customer}", on_failure="hold"))
    async def book(customer: str, n: int) -> None:
        seen.append(n)
        if n == 1:
            raise Fail("no such account")

    book.enqueue_many([{"customer": "a", "n": n} for n in range(4)])
    await _burst(pgq)  # and a burst does not wait for what only a person can let go
    assert seen == [0, 1]
    assert states(database) == {"completed": 1, "failed": 1, "blocked": 2}
    (held,) = rows(database, "select job_id from pgqueue.order_holds")
    pgq.delete(held[0])
    await _burst(pgq)
    assert seen == [0, 1, 2, 3]


async def test_a_rate_is_kept_by_a_worker_that_could_do_more(pgq: PgQueue, database: str) -> None:
    @pgq.task(limits=[Limit("api", starts=3, per=0.5)])
    async def call(n: int) -> None: ...

    call.enqueue_many([{"n": n} for n in range(9)])
    await _burst(pgq)
    assert states(database) == {"completed": 9}
    most = (
        "select max(n) from (select count(*) over (order by started_at range between "
        "interval '499.999 ms' preceding and current row) as n from pgqueue.finished_jobs) as s"
    )
    assert value(database, most) == 3
    assert pgq.check_limits() == []


@pytest.mark.parametrize("limits", [[], [Limit("q", running=5)]])
async def test_a_limit_of_a_queue_holds_for_tasks_with_and_without_limits(
    pgq: PgQueue, database: str, limits: list[Limit]
) -> None:
    counter = Counter()

    @pgq.task(queue="mail", limits=limits)
    async def work(n: int) -> None:
        await counter.hold(0.005)

    pgq.set_limit("queue:mail", running=2)
    work.enqueue_many([{"n": n} for n in range(12)])
    await _burst(pgq, workers=2)
    assert states(database) == {"completed": 12}
    assert counter.most == 2


async def test_windows_of_a_limited_task_are_limited(pgq: PgQueue, database: str) -> None:
    @pgq.task(limits=[Limit("one", running=1)])
    async def fire() -> None: ...

    pgq.schedule("often", cron="* * * * *", task=fire, overlap="allow")
    await _burst(pgq)
    rows(
        database,
        "update pgqueue.schedules set next_run_at = date_trunc('minute', now()) - interval '2 min'",
    )
    await _burst(pgq)
    assert value(database, "select count(*) from pgqueue.finished_jobs where limits = '{one}'") >= 2


async def test_jobs_with_limits_are_never_fetched_ahead(pgq: PgQueue, database: str) -> None:
    gate = asyncio.Event()
    query = "select count(*) from pgqueue.jobs where state = 'running'"

    @pgq.task(limits=[Limit("many", running=100)])
    async def quick(n: int) -> None: ...

    @pgq.task(limits=[Limit("many", running=100)])
    async def slow(n: int) -> None:
        await gate.wait()

    # From the quick ones the worker learns that it could fetch many ahead.
    quick.using(priority=9).enqueue_many([{"n": n} for n in range(40)])
    slow.enqueue_many([{"n": n} for n in range(40)])
    running = asyncio.create_task(pgq.worker(burst=True, concurrency=2).run())
    ended = "select count(*) from pgqueue.finished_jobs"
    await asyncio.to_thread(until, lambda: rows(database, ended) == [(40,)])
    await asyncio.to_thread(until, lambda: rows(database, query) == [(2,)])
    await asyncio.sleep(0.2)
    assert rows(database, query) == [(2,)]
    gate.set()
    await asyncio.wait_for(running, 60)
    assert states(database) == {"completed": 80}


async def test_a_pass_that_met_another_is_tried_again_until_one_of_its_own_ran(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task(limits=[Limit("one", running=1)])
    async def work() -> None: ...

    work.enqueue()
    worker(database, tasks=["work"])
    hand, link, let_in = Hand(), Link("test", lambda: database), list[int]()
    admission = Admission(
        pgq.sql,
        link,
        pgq.settings,
        hand,
        queues=(),
        has_room=lambda _: True,
        let_in=lambda: let_in.append(1),
    )
    hand.freed = {"one"}
    with psycopg.connect(database) as other:
        # It has counted, and sees nothing of what ends from now on.
        other.execute(
            "select pg_advisory_xact_lock("
            "hashtextextended('pgqueue.jobs'::regclass::oid::text || ' admission', 0))"
        )
        assert await admission.turn() <= 1.25 * AGAIN_AFTER
        assert (let_in, hand.freed) == ([], {"one"})
    assert await admission.turn() > AGAIN_AFTER
    assert (let_in, hand.freed) == ([1], set())
    await link.close()


async def test_a_limit_of_none_stops_what_it_limits_until_it_is_reset(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task(limits=[Limit("one", running=1)])
    async def work() -> None: ...

    job = work.enqueue()
    pgq.set_limit("one", running=0)
    await _burst(pgq)
    assert states(database) == {"blocked": 1}
    worker(database, tasks=["work"])
    assert "its 0 slots are all there are" in pgq.why(job.id)[0].message
    pgq.reset_limit("one")
    await _burst(pgq)
    assert states(database) == {"completed": 1}


async def test_after_another_connection_admissions_below_the_place_that_was_known_are_seen(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task(limits=[Limit("one", running=1)])
    async def work() -> None: ...

    work.enqueue_many([{}] * 2)
    worker(database, tasks=["work"])
    link = Link("test", lambda: database)
    admission = Admission(
        pgq.sql,
        link,
        pgq.settings,
        Hand(),
        queues=(),
        has_room=lambda _: True,
        let_in=lambda: None,
    )
    assert (await admission.try_once(link)).admitted == 1
    rows(database, "select setval('pgqueue.admitted_seq', 1000)")
    # A server that was killed comes back without the last of what it said: what had ended lives.
    admission.place = Place(900)
    await link.close()
    assert (await admission.try_once(link)).admitted == 0
    assert admission.place.lowest == 1
    await link.close()


async def test_a_line_that_was_freed_without_a_word_is_found_ahead_of_the_passes(
    pgq: PgQueue, database: str
) -> None:
    """Whoever ended its job was killed before his pass; thousands of lines wait before it."""

    @pgq.task(ordered_by="customer:{customer}")
    async def work(customer: str) -> None: ...

    work.enqueue(customer="zz")
    rows(
        database,
        "insert into pgqueue.jobs (task, queue, state, limits, blocked_on, order_name, run_at) "
        "select 'work', 'default', 'blocked', array[name], "
        "case when n = 1 then '@run_at' else name end, name, now() + (2 - n) * interval '1 hour' "
        "from generate_series(1, 3000) as k, generate_series(1, 2) as n, "
        "lateral (select 'ordered:customer:' || lpad(k::text, 6, '0')) as names (name)",
    )
    rows(database, "update pgqueue.jobs set blocked_on = limits[1] where blocked_on = '@new'")
    worker(database, tasks=["work"])
    link = Link("test", lambda: database)
    admission = Admission(
        pgq.sql,
        link,
        pgq.settings,
        Hand(),
        queues=(),
        has_room=lambda _: True,
        let_in=lambda: None,
    )
    looks = 0
    while not (await admission.try_once(link)).admitted:
        looks += 1
        admission._next_look = 0.0  # a second later
    assert looks <= 3, "64 lines a pass would be 47"
    await link.close()

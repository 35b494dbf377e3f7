"""Limited jobs as tests need them: a task, passes of admission, who is in and who stands where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from endings import end, worker
from pgqueue import Limit, PgQueue
from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.limits import Pass, Place, admit
from pgqueue.tasks.task import Task
from proving import rows

START = Place()


def passing_on(pgq: PgQueue, database: str) -> Callable[..., Pass]:
    """One pass of admission, by a fleet in which a worker serves everything."""

    def go(*named: str, place: Place = START, tasks: tuple[str, ...] = ("send",)) -> Pass:
        rows(database, "update pgqueue.workers set tasks = %s", [list(tasks)])
        with connect(database) as connection:
            return run(connection, admit(pgq.sql, named, place, 15.0))

    worker(database, tasks=["send"])
    rows(database, "select pgqueue.make_partitions()")
    return go


def sending(pgq: PgQueue, *limits: Limit, **options: Any) -> Task[None]:
    @pgq.task(name="send", limits=limits, **options)
    def send(n: int = 0, customer: str = "") -> None: ...

    return send


def let_in(database: str) -> list[int]:
    query = "select id from pgqueue.jobs where admitted_seq is not null order by admitted_seq"
    return [job_id for (job_id,) in rows(database, query)]


def lines(database: str) -> dict[str, int]:
    query = "select blocked_on, count(*) from pgqueue.jobs where state = 'blocked' group by 1"
    return dict(rows(database, query))


def fail_and_hold(database: str, pgq: PgQueue, job_id: int) -> None:
    """End the job as failed for good, and hold its order, as its worker does in one commit."""
    end(database, job_id, state="failed")
    with connect(database) as connection:
        connection.execute(pgq.sql["hold_orders"], {"ids": [job_id]})

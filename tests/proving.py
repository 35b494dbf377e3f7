"""What the tests of engine, worker, tasks and schedule share: moved time, awaited events, locks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg

from pgqueue import events
from pgqueue.events import Event

E = TypeVar("E", bound=Event)
PATIENCE = 20.0
"""Seconds until a promise that should come true at once counts as broken."""


class Clock:
    """The database's time, held still at `at` and moved by hand."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.at = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
        self.set(self.at)

    def set(self, at: datetime) -> None:
        self.at = at
        with psycopg.connect(self._url, autocommit=True) as connection:
            for name, kind in (("clock", "stable"), ("clock_now", "volatile")):
                connection.execute(
                    f"create or replace function pgqueue.{name}() returns timestamptz "
                    f"language sql {kind} as $$select timestamptz '{at.isoformat()}'$$"
                )

    def move(self, **by: float) -> None:
        self.set(self.at + timedelta(**by))


class Recorder:
    """Every event since `listening` began; waits for one with a deadline."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in list(self.seen) if isinstance(event, kind)]

    def wait(
        self,
        kind: type[E],
        *,
        count: int = 1,
        where: Callable[[E], bool] = lambda _: True,
        within: float = PATIENCE,
    ) -> list[E]:
        """The events of this kind once there are `count`; fails after `within` seconds."""

        def found() -> list[E]:
            return [event for event in self.of(kind) if where(event)]

        with self._changed:
            came = self._changed.wait_for(lambda: len(found()) >= count, within)
        assert came, f"{len(found())} of {count} {kind.__name__} in {within} s"
        return found()

    async def await_(self, kind: type[E], **how: Any) -> list[E]:
        return await asyncio.to_thread(self.wait, kind, **how)


@contextmanager
def listening() -> Iterator[Recorder]:
    recorder = Recorder()
    undo = events.subscribe(recorder)
    try:
        yield recorder
    finally:
        undo()


def until(promise: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The first true answer of `promise`; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        if answer := promise():
            return answer
        assert time.monotonic() < deadline, f"did not come true in {within} s"
        time.sleep(0.01)


def blocked_on(url: str, pid: int) -> bool:
    """Whether some backend waits for a lock of backend `pid`."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "select 1 from pg_stat_activity where %s = any(pg_blocking_pids(pid))", [pid]
        )
        return rows.fetchone() is not None


def rows(url: str, query: str, params: Any = None) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, params)
        return cursor.fetchall() if cursor.description else []


def value(url: str, query: str, params: Any = None) -> Any:
    return rows(url, query, params)[0][0]


def states(url: str) -> dict[str, int]:
    """How many jobs are in which state, finished ones included."""
    return dict(rows(url, "select state, count(*) from pgqueue.all_jobs group by 1"))


def workers_started_long_ago(url: str) -> None:
    """Every worker to come seems to have started an hour ago: no rollout is on."""
    rows(
        url,
        "create function pgqueue.an_hour_ago() returns trigger language plpgsql as "
        "$$ begin new.started_at = now() - interval '1 hour'; return new; end $$",
    )
    rows(
        url,
        "create trigger an_hour_ago before insert on pgqueue.workers "
        "for each row execute function pgqueue.an_hour_ago()",
    )

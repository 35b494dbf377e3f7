"""What a worker with nothing to do asks of the server, counted over a moved clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgqueue import PgQueue
from pgqueue.db.pools import aconnect
from pgqueue.db.run import Batch, Statement, Steps, arun
from pgqueue.engine.notify import LISTENING_REST, SCHEDULES
from pgqueue.events import JobsRescued
from pgqueue.settings import Settings
from pgqueue.worker import duties as duties_module
from pgqueue.worker import link as link_module
from pgqueue.worker import upkeep as upkeep_module
from pgqueue.worker.chores import HOLD, Chores, worker_chores
from pgqueue.worker.duties import worker_duties
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link
from pgqueue.worker.ticker import UNSCHEDULED, Ticker
from pgqueue.worker.upkeep import Upkeep
from proving import PATIENCE, Clock, Recorder, rows, value

MOST = 2.0
"""Statements and transactions a second that an idle worker may send at most, with defaults."""

SHORTEST_LOOK = 0.9 * LISTENING_REST
"""Seconds between two looks of the claim loop while hints get through."""


class Ended:
    def __init__(self, value: Any) -> None:
        self.value = value


def next_of(steps: Steps[Any], reply: Any) -> Any:
    try:
        return steps.send(reply)
    except StopIteration as stop:
        return Ended(stop.value)


class Asked:
    """Statements by name and transactions of all links, by wrapping what drives them."""

    def __init__(self, pgq: PgQueue) -> None:
        self._names = {text: name for name, text in pgq.sql.items()}
        self.clear()

    def clear(self) -> None:
        self.statements: Counter[str] = Counter()
        self.transactions = 0

    async def arun(self, connection: Any, steps: Steps[Any]) -> Any:
        return await arun(connection, self._noted(steps))

    def _noted(self, steps: Steps[Any]) -> Steps[Any]:
        asked = next_of(steps, None)
        while not isinstance(asked, Ended):
            self._note(asked)
            asked = next_of(steps, (yield asked))
        return asked.value

    def _note(self, asked: Any) -> None:
        if isinstance(asked, Batch):
            texts = ["begin", *(one.text for one in asked.statements), "commit"]
        else:
            assert isinstance(asked, Statement)
            texts = [asked.text]
        self.statements.update(self._names.get(text, text) for text in texts)
        # Those inside one that was begun by hand count, too: more rather than less.
        self.transactions += 1

    async def aconnect(self, conninfo: str) -> Any:
        self.statements["pg_backend_pid"] += 1
        self.transactions += 2
        return await aconnect(conninfo)


class Idle:
    """The upkeep of a worker that is alone in its fleet and listens, on clocks moved together."""

    def __init__(self, pgq: PgQueue, database: str, clock: Clock) -> None:
        self.now = 1000.0
        self._clock = clock
        settings = Settings(database_url=database, stats_interval=60.0)
        self.settings = settings
        self.link = Link("upkeep", lambda: database)
        self.is_listening = True
        timeout = settings.heartbeat_timeout
        self.chores = Chores(
            worker_chores(
                pgq.sql,
                heartbeat_timeout=timeout,
                channel=settings.channel,
                may_rescue=lambda: True,
                wake=lambda: None,
            ),
            sql=pgq.sql,
            link=self.link,
            conninfo=lambda: database,
            worker_id=lambda: 1,
            hold=HOLD,
            heartbeat_timeout=timeout,
            hurry=lambda: self.upkeep.hurry("chores"),
        )
        claims: Any = SimpleNamespace(
            lost_replies=0, reconciled=lambda _: None, wake=lambda *_: None
        )
        listener: Any = self
        admission: Any = SimpleNamespace(turn=None)
        duties = worker_duties(
            sql=pgq.sql,
            settings=settings,
            link=self.link,
            worker_id=lambda: 1,
            queues=(),
            hand=Hand(),
            claims=claims,
            chores=self.chores,
            admission=admission,
            ticker=Ticker(pgq.sql, self.link, settings, listener, lambda: None),
            ticks=True,
        )
        self.duties = duties
        self.upkeep = Upkeep(duties, self.link.connected)

    def monotonic(self) -> float:
        return self.now

    async def live(self, seconds: float) -> None:
        """So many seconds, without waiting for them."""
        end = self.now + seconds
        while self.now < end:
            await self.upkeep.run_once()
            # A slow chore that is under way ends at once, on this clock.
            await self.chores.close()
            due = min(duty.due for duty in self.duties)
            rest = max(0.0, min(due, end) - self.now)
            self.now += rest
            self._clock.move(seconds=rest)


@pytest.fixture
async def idle(
    pgq: PgQueue, database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Idle]:
    # Today's: of years to come there are no days.
    clock.set(datetime.now(UTC))
    idle = Idle(pgq, database, clock)
    monkeypatch.setattr(upkeep_module, "time", idle)
    monkeypatch.setattr(duties_module, "time", idle)
    yield idle
    await idle.link.close()


@pytest.fixture
def asked(pgq: PgQueue, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(pgq)
    monkeypatch.setattr(link_module, "arun", asked.arun)
    monkeypatch.setattr(link_module, "aconnect", asked.aconnect)
    return asked


def of_others(settings: Settings, seconds: float) -> float:
    """What the heart and the claim loop send meanwhile, one statement a transaction."""
    return seconds / settings.beat_every + seconds / SHORTEST_LOOK


SCHEDULE = (
    "insert into pgqueue.schedules (name, cron, task, next_run_at) "
    "select name, '0 0 1 1 *', 't', pgqueue.clock() + later "
    "from unnest(%s::text[], %s::interval[]) as one (name, later)"
)

OF_THE_START = 40
"""Statements of a worker that comes, and the looks of its claim loop that double their rest."""


@pytest.mark.parametrize("given", [0, 1])
async def test_a_worker_that_does_all_chores_alone_sends_less_than_two_statements_a_second(
    idle: Idle, database: str, asked: Asked, given: int
) -> None:
    if given:
        rows(database, SCHEDULE, [["yearly"], ["300 days"]])
    await idle.live(60)
    in_first_minute = asked.statements.total() + of_others(idle.settings, 60) + OF_THE_START
    assert in_first_minute < 60 * MOST
    for _ in range(2):
        asked.clear()
        await idle.live(60)
        others = of_others(idle.settings, 60)
        assert asked.statements.total() + others < 60 * MOST
        assert asked.transactions + others < 60 * MOST


async def test_all_chores_with_nothing_to_do_are_one_statement_every_five_seconds(
    idle: Idle, asked: Asked
) -> None:
    await idle.live(60)
    asked.clear()
    await idle.live(60)
    sent = asked.statements
    assert sent["take_chore"] <= 60 / 5 + 2
    # Once a minute, on a connection of its own.
    assert sent["look_for_old"] <= 2
    assert sent["finish_chore"] <= 2
    for name in ("find_dead_workers", "find_expired", "find_marked", "find_told_workflows"):
        assert sent[name] == 0
    assert sent["lock_open_windows"] == sent["make_partitions"] == 0


async def test_with_polls_alone_the_scheduler_looks_once_a_poll_interval_and_no_duty_oftener(
    idle: Idle, asked: Asked
) -> None:
    idle.is_listening = False
    await idle.live(60)
    asked.clear()
    await idle.live(60)
    assert 58 <= asked.statements.pop("seconds_to_next_schedule") <= 61
    assert asked.statements.total() < 60


async def test_who_died_is_rescued_in_time_though_nobody_looks_for_the_dead_but_in_passing(
    idle: Idle, database: str, clock: Clock, recorder: Recorder
) -> None:
    await idle.live(60)
    rows(
        database,
        "insert into pgqueue.workers (id, host, pid, version, queues, concurrency, tasks, "
        "heartbeat_at) values (7, 'here', 1, '1', '{}', 1, '{}', pgqueue.clock())",
    )
    rows(
        database,
        "insert into pgqueue.jobs (task, queue, state, lease, worker_id, started_at, attempt) "
        "values ('t', 'q', 'running', 7, 7, pgqueue.clock(), 1)",
    )
    await idle.live(idle.settings.heartbeat_timeout)
    assert recorder.of(JobsRescued) == []
    await idle.live(5.01)
    assert [event.dead_worker_id for event in recorder.of(JobsRescued)] == [7]


@pytest.mark.parametrize("given", [0, 1])
async def test_a_schedule_that_somebody_inserts_by_hand_is_seen(
    idle: Idle, database: str, clock: Clock, given: int
) -> None:
    if given:
        rows(database, SCHEDULE, [["other"], ["300 days"]])
    await idle.live(60)
    rows(database, SCHEDULE, [["mine"], ["0"]])
    await idle.live((LISTENING_REST if given else UNSCHEDULED) + 0.01)
    assert value(
        database, "select next_run_at > pgqueue.clock() from pgqueue.schedules where name = 'mine'"
    )


async def test_a_schedule_that_is_put_in_a_transaction_is_told_with_its_commit(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    async def report() -> None: ...

    with psycopg.connect(database, autocommit=True) as ear, psycopg.connect(database) as own:
        ear.execute("listen pgqueue")
        pgq.put_schedule("undone", cron="@daily", task=report, connection=own)
        own.rollback()
        pgq.put_schedule("yearly", cron="0 0 1 1 *", task=report, connection=own)
        own.commit()
        heard = [one.payload for one in ear.notifies(timeout=PATIENCE, stop_after=1)]
    assert heard == [SCHEDULES]


async def test_schedulers_hear_of_the_schedules_that_a_worker_brings_along(
    pgq: PgQueue, database: str
) -> None:
    @pgq.task
    async def report() -> None: ...

    pgq.schedule("yearly", cron="0 0 1 1 *", task=report)
    with psycopg.connect(database, autocommit=True) as ear:
        ear.execute("listen pgqueue")
        await pgq.worker(burst=True, scheduler=False).run()
        heard = [one.payload for one in ear.notifies(timeout=PATIENCE, stop_after=1)]
    assert heard == [SCHEDULES]

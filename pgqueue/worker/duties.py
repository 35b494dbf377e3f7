"""What a worker does beside its jobs, and how often."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from pgqueue.db.run import Statement, ask
from pgqueue.settings import Settings
from pgqueue.worker.admission import Admission
from pgqueue.worker.chores import Chores
from pgqueue.worker.deliveries import Deliveries
from pgqueue.worker.following import Followers
from pgqueue.worker.hand import Hand
from pgqueue.worker.link import Link
from pgqueue.worker.loop import ClaimLoop
from pgqueue.worker.statistics import Done, StatsLine
from pgqueue.worker.strays import Strays
from pgqueue.worker.ticker import Ticker
from pgqueue.worker.upkeep import Duty

RECONCILE_EVERY = 30.0
PARTITIONS_EVERY = 3600.0


def worker_duties(
    *,
    sql: Mapping[str, str],
    settings: Settings,
    link: Link,
    worker_id: Callable[[], int],
    queues: tuple[str, ...],
    hand: Hand,
    claims: ClaimLoop,
    chores: Chores,
    admission: Admission,
    ticker: Ticker,
    ticks: bool,
) -> list[Duty]:
    """The duties of one worker; those that are due in no time come when they are hurried."""

    async def make_partitions() -> None:
        await link.execute(ask(Statement(sql["make_partitions"])))

    def done() -> Done:
        tally = hand.tally
        return Done(tally.completed, tally.failed, tally.handed_back, len(hand.running))

    strays = Strays(sql, link, worker_id, hand, claims)
    deliveries = Deliveries(sql, link, settings, claims.wake)
    followers = Followers(sql, link, hand, settings.channel, claims.wake)
    duties = [
        Duty("chores", settings.beat_every, chores.turn),
        # Who has just begun has lost nothing.
        Duty("strays", RECONCILE_EVERY, strays.turn, due=time.monotonic() + RECONCILE_EVERY),
        Duty("admission", math.inf, admission.turn, due=math.inf),
        # The hourly chore makes them ahead; this one is for a handler that met a missing day.
        Duty("partitions", PARTITIONS_EVERY, make_partitions, due=math.inf),
        Duty("windows", math.inf, ticker.let_go, due=math.inf),
        Duty("events", settings.poll_interval, deliveries.turn),
        Duty("workflows", math.inf, followers.turn, due=math.inf),
    ]
    if ticks:
        duties.append(Duty("tick", settings.poll_interval, ticker.turn))
    if every := settings.stats_interval:
        line = StatsLine(sql, link, worker_id, done, queues)
        duties.append(Duty("statistics", every, line.tell, due=time.monotonic() + every))
    return duties

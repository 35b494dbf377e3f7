"""Whether a new version may be on its way: then a payload we cannot read may be for it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg

from pgqueue.db.pools import Pools
from pgqueue.db.run import arun
from pgqueue.engine.statistics import find_rollout
from pgqueue.errors import PgQueueError

ROLLOUT_SECONDS = 900.0
"""How long after the newest worker's start a payload that does not validate may be meant for it."""

ROLLOUT_WAIT = 60.0
"""Seconds until such a job comes again."""

LOOK_EVERY = 5.0


class Rollout:
    """Knows when some worker started lately; asks the database every few seconds at most."""

    def __init__(self, sql: Mapping[str, str], pools: Pools) -> None:
        self._sql = sql
        self._pools = pools
        self._looked_at = float("-inf")
        self._is_on = True

    async def is_on(self) -> bool:
        """True as well while the database cannot say: the job then waits for better days."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return self._is_on
        try:
            async with self._pools.aconnection() as connection:
                self._is_on = await arun(connection, find_rollout(self._sql, ROLLOUT_SECONDS))
        except (psycopg.Error, PgQueueError):
            return True
        self._looked_at = time.monotonic()
        return self._is_on

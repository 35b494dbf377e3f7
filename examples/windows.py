"""A schedule whose missed windows are caught up, each exactly once.

Run: python examples/windows.py
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from pgqueue import PgQueue
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()


@pgq.task
async def count_visits(window_start: datetime, window_end: datetime) -> None:
    """Count the visits of one hour."""
    log.info("counting %s to %s", window_start.time(), window_end.time())


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    pgq.put_schedule("example-visits", cron="0 * * * *", task=count_visits)
    with pgq.connection() as connection:
        # As if nobody had ticked for three hours.
        connection.execute(
            "update pgqueue.schedules set next_run_at = next_run_at - interval '3 hours' "
            "where name = 'example-visits'"
        )
    log.info("first tick: %s", pgq.tick())
    log.info("second tick: %s", pgq.tick())
    asyncio.run(pgq.worker(burst=True, scheduler=False).run())
    with pgq.connection() as connection:
        connection.execute("delete from pgqueue.schedules where name = 'example-visits'")
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

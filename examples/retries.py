"""A task that fails, waits, and comes through; and one that gives up.

Run: python examples/retries.py
"""

from __future__ import annotations

import asyncio
import logging

from pgqueue import Fail, Job, PgQueue, Retry
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()

LAST_TRY = 3


@pgq.task(retry=Retry(attempts=LAST_TRY, delays=[0]))
async def flaky(job: Job) -> str:
    """Fails twice."""
    if job.attempt < LAST_TRY:
        raise ConnectionError(f"try {job.attempt}: nobody answers")
    return f"came through at try {job.attempt}"


@pgq.task(retry=Retry(attempts=3))
def hopeless(address: str) -> None:
    """Knows that another try would not help."""
    raise Fail(f"{address} is no address")


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    jobs = [flaky.enqueue(), hopeless.enqueue(address="nowhere")]
    asyncio.run(pgq.worker(burst=True).run())
    for job in jobs:
        ended = pgq.get_job(job.id)
        log.info("%s: %s after %s tries", ended.task, ended.state, ended.attempt)
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

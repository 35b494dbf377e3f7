"""One call for many jobs; each has its own result, or its own failure.

Run: python examples/batches.py
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from pgqueue import JobFailed, PgQueue
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()


@dataclass
class Text:
    text: str


@pgq.task(name="example-measure", queue="example-batches", batch=100, max_wait=0.1)
async def measure(items: list[Text]) -> list[int | Exception]:
    """The lengths of all texts, in their order."""
    return [len(item.text) or ValueError("is empty") for item in items]


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    jobs = [measure.enqueue(text=text) for text in ("one", "", "three")]
    asyncio.run(pgq.worker(burst=True, scheduler=False).run())
    for job in jobs:
        try:
            log.info("length: %s", job.result(timeout=30))
        except JobFailed as failed:
            log.info("no length: %s", failed.reason)
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

"""A long job that is charged once, fails, goes on where it was, and waits for a payment.

Run: python examples/steps.py
"""

from __future__ import annotations

import asyncio
import logging

from pgqueue import Job, PgQueue, Retry
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()


def reserve(order: int) -> str:
    """Must not happen twice."""
    log.info("reserved for order %s", order)
    return f"shelf {order % 10}"


@pgq.task(name="example-fulfil", retry=Retry(attempts=2, delays=[0]))
async def fulfil(order: int, job: Job) -> str:
    """Two steps; between them the network fails once, and somebody has to pay."""
    shelf: str = await job.step("reserve", reserve, order)
    if job.attempt == 1:
        raise ConnectionError("the network is away")
    paid = await job.wait_for("example-paid", order, timeout=3600)
    return f"from {shelf}, {paid['amount']} paid"


def work() -> None:
    asyncio.run(pgq.worker(burst=True, scheduler=False).run())


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    job = fulfil.enqueue(order=7)
    work()
    log.info("why: %s", pgq.why(job.id)[0].cause)
    pgq.emit("example-paid", 7, {"amount": 12})
    work()
    log.info("result: %s", job.result(timeout=30))
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

"""At most two calls of an API at once for each tenant, and the events of a customer in order.

Run: python examples/limits.py
"""

from __future__ import annotations

import asyncio
import logging

from pgqueue import Job, Limit, PgQueue
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()
now: dict[str, int] = {}
most: dict[str, int] = {}

AT_ONCE = 2


@pgq.task(name="example-call-api", limits=[Limit("example-api:{tenant}", running=AT_ONCE)])
async def call_api(tenant: str) -> None:
    """Notes how many calls of its tenant are under way."""
    now[tenant] = now.get(tenant, 0) + 1
    most[tenant] = max(most.get(tenant, 0), now[tenant])
    await asyncio.sleep(0.05)
    now[tenant] -= 1


@pgq.task(name="example-apply-event", ordered_by="example-customer:{customer}")
async def apply_event(customer: int, event: str, job: Job) -> None:
    """Runs after all earlier events of the customer."""
    log.info("customer %s: %s", customer, event)


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    for tenant in ("acme", "bolt"):
        call_api.using(tenant=tenant).enqueue_many([{"tenant": tenant}] * 8)
    for event in ("created", "paid", "shipped"):
        apply_event.enqueue(customer=7, event=event)
    asyncio.run(pgq.worker(burst=True, scheduler=False).run())
    for tenant, calls in sorted(most.items()):
        log.info("%s: never more than %s: %s", tenant, AT_ONCE, calls <= AT_ONCE)
    log.info("exceeded: %s", pgq.check_limits())
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

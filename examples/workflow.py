"""Fetch pages side by side, add them up, report; a failed page is run again and all goes on.

Run: python examples/workflow.py
"""

from __future__ import annotations

import asyncio
import logging

from pgqueue import Parents, PgQueue
from pgqueue.db import upgrade

log = logging.getLogger("example")
pgq = PgQueue()
down = {"/prices"}


@pgq.task(name="example-fetch")
async def fetch(page: str) -> int:
    """The length of a page; one of the pages cannot be reached at first."""
    if page in down:
        raise ConnectionError(f"{page} does not answer")
    return len(page)


@pgq.task(name="example-total")
async def total(parents: Parents[int]) -> int:
    """The sum of what the pages gave."""
    return sum(parents.group("page"))


@pgq.task(name="example-report")
async def report(parents: Parents[int]) -> str:
    """A line about it."""
    return f"{parents['total']} letters"


def work() -> None:
    asyncio.run(pgq.worker(burst=True, scheduler=False).run())


def main() -> None:
    upgrade.move(pgq.settings, pgq.conninfo())
    wf = pgq.workflow("example-pages")
    names = ["/", "/about", "/prices"]
    pages = wf.group("page", [fetch.payload(page=name) for name in names])
    wf.add("total", total.payload(), after=pages)
    wf.add("report", report.payload(), after="total")
    made = wf.enqueue()
    work()
    log.info("the workflow is %s", pgq.show_workflow(made.id)["state"])
    down.clear()
    log.info("run again: %s nodes", len(pgq.retry_workflow(made.id).retried))
    work()
    log.info("report: %s", pgq.get_job(made.jobs["report"]).result(timeout=30))
    pgq.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()

"""Runs a worker in this process, with logs on stderr."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from pgqueue.db.pools import connect
from pgqueue.errors import ConfigError, DatabaseUnreachable
from pgqueue.observe import log

if TYPE_CHECKING:
    from pgqueue import PgQueue

LEVELS = ("debug", "info", "warning", "error")


def configure_logs(level: str) -> None:
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r} is not valid: {', '.join(LEVELS)}")
    log.configure(level)


def wait_for_database(pgq: PgQueue, seconds: float) -> None:
    """Return once a connection succeeded; raises DatabaseUnreachable after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect(pgq.conninfo()).close()
        except DatabaseUnreachable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)
        else:
            return


def run_worker(pgq: PgQueue, *, log_level: str, wait_for_db: float, **options: Any) -> None:
    """Work until told to stop; leaves the process itself if threads could not be ended."""
    configure_logs(log_level)
    wait_for_database(pgq, wait_for_db)
    worker = pgq.worker(**options)
    asyncio.run(worker.run())
    pgq.close()
    if worker.has_lingering_threads:
        # They run user code that did not look at job.cancelled; the interpreter would wait for
        # them for ever, and what they still write is fenced.
        sys.stderr.flush()
        os._exit(0)

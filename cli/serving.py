"""Runs a worker in this process, with logs on stderr."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgqueue.db.pools import connect
from pgqueue.db.version import check_version
from pgqueue.errors import ConfigError, DatabaseUnreachable, SchemaTooNew
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
    has_told = False
    while True:
        try:
            connect(pgq.conninfo()).close()
        except DatabaseUnreachable as error:
            if time.monotonic() >= deadline:
                raise
            if not has_told:
                _log().warning("waiting for the database", reason=str(error), seconds=seconds)
                has_told = True
            time.sleep(0.5)
        else:
            return


def migrate(pgq: PgQueue) -> None:
    """Bring the database to this version; one that is ahead and vouches for us is left alone.

    So an older container that restarts in the middle of a rolling deploy comes up again.
    """
    # Before its import: it tells of every plugin.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from pgqueue.db import upgrade

    schema = pgq.settings.schema_name
    try:
        revision = upgrade.move(pgq.settings, pgq.conninfo())
    except SchemaTooNew as error:
        with connect(pgq.conninfo()) as connection:
            check_version(connection, schema)
        _log().warning("the database is ahead, and works with this version", reason=str(error))
    else:
        _log().info("database is migrated", schema=schema, revision=revision)


def run_worker(
    pgq: PgQueue,
    *,
    log_level: str,
    wait_for_db: float,
    before: Callable[[PgQueue], None] | None = None,
    **options: Any,
) -> None:
    """Work until told to stop; leaves the process itself if threads could not be ended.

    `before` is called once the database has answered.
    """
    configure_logs(log_level)
    wait_for_database(pgq, wait_for_db)
    if before is not None:
        before(pgq)
    worker = pgq.worker(**options)
    asyncio.run(worker.run())
    pgq.close()
    if worker.has_lingering_threads:
        # They run user code that did not look at job.cancelled; the interpreter would wait for
        # them for ever, and what they still write is fenced.
        sys.stderr.flush()
        os._exit(0)


def _log() -> Any:
    import structlog

    return structlog.get_logger()

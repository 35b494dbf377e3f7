"""Runs a worker in this process, with logs on stderr."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pgqueue.db.pools import connect
from pgqueue.db.version import check_version
from pgqueue.errors import ConfigError, DatabaseUnreachable, SchemaTooNew
from pgqueue.observe import log
from pgqueue.settings import read_settings

if TYPE_CHECKING:
    from pgqueue import PgQueue
    from pgqueue.worker.service import Worker
    from pgqueue.worker.supervised import SupervisorLine

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
    line: SupervisorLine | None = None,
    **options: Any,
) -> None:
    """Work until told to stop; leaves the process itself if handlers could not be ended.

    `before` is called once the database has answered; `line` leads to the supervisor of this
    process, if it has one.
    """
    configure_logs(log_level)
    wait_for_database(pgq, wait_for_db)
    if before is not None:
        before(pgq)
    worker = pgq.worker(**options)
    if line is not None:
        line.attend(worker)
    asyncio.run(_work(pgq, worker))


async def _work(pgq: PgQueue, worker: Worker) -> None:
    await worker.run()
    pgq.close()
    if worker.has_lingering_handlers:
        # A thread that did not look at job.cancelled, a coroutine that swallowed its cancellation:
        # asyncio and the interpreter would wait for them for ever. What they still write is fenced.
        sys.stderr.flush()
        os._exit(0)


def run_supervisor(
    *,
    processes: int,
    concurrency: int | None = None,
    queues: Sequence[str] = (),
    burst: bool = False,
    app: str | None = None,
    scheduler: bool = True,
    shutdown_timeout: float | None = None,
    wait_for_db: float = 0.0,
    health_host: str = "127.0.0.1",
    health_port: int | None = None,
    log_level: str = "info",
    before: Callable[[], None] | None = None,
) -> int:
    """Keep so many worker processes running, each with these options; returns the exit code.

    `before` is called first. The app need not be imported here: the first worker tells what is
    wrong with it.
    """
    from pgqueue.worker.supervisor import Supervisor, SupervisorOptions

    configure_logs(log_level)
    if before is not None:
        before()
    settings = read_settings()
    port = settings.health_port if health_port is None else health_port
    # One process, whatever PGQUEUE_PROCESSES says; their ports are between them and us.
    words = ["worker", "--processes", "1", *(["--health-port", "0"] if port is not None else [])]
    words += ["--log-level", log_level, "--wait-for-db", str(wait_for_db)]
    words += [word for queue in queues for word in ("--queue", queue)]
    given = {"concurrency": concurrency, "app": app, "shutdown-timeout": shutdown_timeout}
    for name, value in given.items():
        words += [] if value is None else [f"--{name}", str(value)]
    words += ["--burst"] * burst + ["--no-scheduler"] * (not scheduler)
    options = SupervisorOptions(
        processes=processes,
        burst=burst,
        shutdown_timeout=(
            settings.shutdown_timeout if shutdown_timeout is None else shutdown_timeout
        ),
        health_host=health_host,
        health_port=port,
    )
    supervisor = Supervisor([sys.executable, "-m", __package__, *words], options)
    return asyncio.run(supervisor.run())


def _log() -> Any:
    import structlog

    return structlog.get_logger()

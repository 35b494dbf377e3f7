"""pgq up."""

from __future__ import annotations

from typing import Any

import typer

from ..common import AppOption, load_app
from .worker import Concurrency, LogLevel, Processes, ShutdownTimeout, WaitForDb


def up(
    concurrency: Concurrency = None,
    processes: Processes = None,
    app: AppOption = None,
    shutdown_timeout: ShutdownTimeout = None,
    wait_for_db: WaitForDb = 60,
    log_level: LogLevel = "info",
) -> None:
    """Migrate the database, then work and tick schedules, as a rule all in this one process.

    What a container runs. It waits for the database and stops like `pgq worker`: SIGTERM or
    Ctrl-C lets running jobs end, a second signal leaves at once. With --processes it supervises
    so many workers.

    Example: pgq up --concurrency 20
    """
    from ..serving import migrate, run_supervisor, run_worker, wait_for_database

    pgq = load_app(app)
    options: dict[str, Any] = {
        "log_level": log_level,
        "wait_for_db": wait_for_db,
        "concurrency": concurrency,
        "shutdown_timeout": shutdown_timeout,
    }
    count = processes or pgq.settings.processes
    if count == 1:
        run_worker(pgq, before=migrate, **options)
        return

    def prepare() -> None:
        wait_for_database(pgq, wait_for_db)
        migrate(pgq)

    raise typer.Exit(run_supervisor(processes=count, app=app, before=prepare, **options))

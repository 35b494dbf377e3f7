"""pgq up."""

from __future__ import annotations

from ..common import AppOption, load_app
from .worker import Concurrency, LogLevel, ShutdownTimeout, WaitForDb


def up(
    concurrency: Concurrency = None,
    app: AppOption = None,
    shutdown_timeout: ShutdownTimeout = None,
    wait_for_db: WaitForDb = 60,
    log_level: LogLevel = "info",
) -> None:
    """Migrate the database, then work and tick schedules, all in this one process.

    What a container runs. It waits for the database and stops like `pgq worker`: SIGTERM or
    Ctrl-C lets running jobs end, a second signal leaves at once.

    Example: pgq up --concurrency 20
    """
    from ..serving import migrate, run_worker

    run_worker(
        load_app(app),
        log_level=log_level,
        wait_for_db=wait_for_db,
        before=migrate,
        concurrency=concurrency,
        shutdown_timeout=shutdown_timeout,
    )

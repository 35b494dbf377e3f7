"""pgq worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import AppOption, load_app

if TYPE_CHECKING:
    from pgqueue.worker.supervised import SupervisorLine

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

# Declared once for `pgq worker` and `pgq up`.
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1, max=10_000, help="How many jobs run at once; PGQUEUE_CONCURRENCY, else 10."
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        help="How many worker processes, each with its own concurrency; PGQUEUE_PROCESSES, else 1.",
    ),
]
ShutdownTimeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds that running jobs get to end after SIGTERM.")
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
WaitForDb = Annotated[float, typer.Option(min=0, help="Seconds to wait for the database at start.")]


@app.callback()
def worker(
    context: typer.Context,
    concurrency: Concurrency = None,
    processes: Processes = None,
    queue: Annotated[
        list[str] | None, typer.Option(help="Take from this queue only; may be repeated.")
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when nothing due is left.")] = False,
    app: AppOption = None,
    no_scheduler: Annotated[
        bool, typer.Option("--no-scheduler", help="Do not tick schedules.")
    ] = False,
    shutdown_timeout: ShutdownTimeout = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when code in this folder changes.")
    ] = False,
    wait_for_db: WaitForDb = 0,
    health_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Answer /healthz and /readyz on this port; 0 for any free one, shown at start.",
        ),
    ] = None,
    health_host: Annotated[
        str, typer.Option(help="Where the port is open; 0.0.0.0 for probes from outside.")
    ] = "127.0.0.1",
    log_level: LogLevel = "info",
    supervisor_line: Annotated[
        int | None, typer.Option(hidden=True, help="For the processes of --processes.")
    ] = None,
    process_number: Annotated[
        int, typer.Option(hidden=True, help="Which of the processes of --processes this is.")
    ] = 1,
) -> None:
    """Claim jobs and run them until told to stop.

    SIGTERM or Ctrl-C: claim nothing new, let running jobs end within the shutdown timeout, hand
    back the rest without costing an attempt. A second signal leaves at once.

    With --processes a supervisor starts so many workers, starts those again that die, passes
    signals on and answers for all of them at --health-port.

    Example: pgq worker --concurrency 4 --queue email --app shop.jobs:pgq
    """
    if context.invoked_subcommand:
        return
    line = _line_to(supervisor_line, process_number)
    if reload:
        from ..reload import run_reloading

        run_reloading()
        return
    from pgqueue.settings import read_settings

    from ..serving import run_supervisor, run_worker

    options: dict[str, Any] = {
        "log_level": log_level,
        "wait_for_db": wait_for_db,
        "queues": tuple(queue or ()),
        "concurrency": concurrency,
        "burst": burst,
        "scheduler": not no_scheduler,
        "shutdown_timeout": shutdown_timeout,
        "health_host": health_host,
        "health_port": health_port,
    }
    count = processes or read_settings().processes
    if count > 1:
        raise typer.Exit(run_supervisor(processes=count, app=app, **options))
    run_worker(load_app(app), line=line, **options)


def _line_to(descriptor: int | None, number: int) -> SupervisorLine | None:
    if descriptor is None:
        return None
    from pgqueue.worker.supervised import SupervisorLine

    return SupervisorLine(descriptor, number)


@app.command("check")
def check() -> None:
    """Succeed if a worker of this host has beaten within the heartbeat timeout.

    For the health check of a container: exit code 0 while it lives, 1 when it does not.

    Example: pgq worker check
    """
    import socket

    from pgqueue import PgQueue
    from pgqueue.db.run import run
    from pgqueue.engine.inspect import find_live_workers

    pgq = PgQueue()
    host = socket.gethostname()
    timeout = pgq.settings.heartbeat_timeout
    with pgq.connection() as connection:
        pids = run(connection, find_live_workers(pgq.sql, host, timeout))
    pgq.close()
    if not pids:
        typer.echo(f"pgq: no worker on host {host!r} has beaten within {timeout:g} s", err=True)
        raise typer.Exit(1)
    typer.echo(f"alive on host {host!r}: pid {', '.join(map(str, pids))}")

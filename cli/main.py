"""The `pgq` command: its tree, and what becomes of errors.

Commands import what they need when they run: `pgq --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from .commands import (
    backfill,
    bench,
    demo,
    doctor,
    emit,
    enqueue,
    inbox,
    jobs,
    limits,
    migrate,
    prune,
    queues,
    schedule,
    sources,
    stats,
    stories,
    tasks,
    topics,
    up,
    window,
    worker,
    workflows,
)
from .common import built_in_tasks

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

app = typer.Typer(
    name="pgq",
    help="Background jobs, cron and time-window pipelines in the Postgres you already run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("inbox")(inbox.inbox)
app.add_typer(topics.app, name="topics")
app.add_typer(sources.app, name="sources")
app.add_typer(stories.app, name="stories")
app.command("up")(up.up)
app.add_typer(worker.app, name="worker")
app.command("migrate")(migrate.migrate)
app.command("enqueue")(enqueue.enqueue)
app.command("emit")(emit.emit)
app.add_typer(schedule.app, name="schedule")
backfill.add_to(schedule.app)
app.add_typer(window.app, name="window")
app.add_typer(jobs.app, name="jobs")
app.add_typer(queues.app, name="queues")
app.add_typer(limits.app, name="limits")
app.add_typer(workflows.app, name="workflows")
app.add_typer(tasks.app, name="tasks")
app.command("stats")(stats.stats)
app.command("doctor")(doctor.doctor)
app.command("prune")(prune.prune)
app.command("bench")(bench.bench)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pgqueue {version('pgqueue')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Background jobs, cron and time-window pipelines in the Postgres you already run.

    The database is PGQUEUE_DATABASE_URL, then DATABASE_URL; without either a private Postgres is
    started. Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


def main() -> None:
    """The entry point: no traceback reaches a person, unless PGQUEUE_DEBUG asks for it."""
    # An ordinary exit, so that the embedded server is left properly; a worker has its own way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left; what it wanted to see it saw.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if os.environ.get("PGQUEUE_DEBUG"):
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    import psycopg

    from pgqueue.errors import ConfigError, PayloadInvalid, PgQueueError, TaskUnknown

    usage = (ConfigError, PayloadInvalid, TaskUnknown)
    # SQLAlchemy adds the whole statement, which may be a migration.
    cause = getattr(error, "orig", None)
    error = cause if isinstance(cause, psycopg.Error) else error
    message = str(error).strip()
    if isinstance(error, TaskUnknown) and error.known == built_in_tasks():
        line = f"{message}; name your own app with --app MODULE:ATTR or PGQUEUE_APP"
    elif isinstance(error, PgQueueError):
        line = message
    elif isinstance(error, psycopg.Error):
        line = f"the database refused: {message.splitlines()[0] if message else 'no reason given'}"
    else:
        line = f"unexpected {type(error).__name__}: {message} (PGQUEUE_DEBUG=1 shows where)"
    print(f"pgq: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201 - the command's voice
    return EXIT_USAGE if isinstance(error, usage) else EXIT_FAILED

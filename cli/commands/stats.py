"""pgq stats."""

from __future__ import annotations

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import plain, safe_table

QUEUES = (
    "queue", "paused", "queued", "scheduled", "retrying", "blocked", "waiting", "running",
    "oldest_due",
)  # fmt: skip
TASKS = ("task", "completed", "failed", "cancelled", "average_time", "last_finished_at")
WORKERS = ("id", "host", "pid", "queues", "concurrency", "running", "alive", "silent_for")
SCHEDULES = ("name", "task", "enabled", "next_run_at", "last_run_at", "last_error")


def stats(app: AppOption = None, json: JsonOption = False) -> None:
    """Show queues, tasks over the last 24 hours, workers, and the next runs of schedules.

    Example: pgq stats --json
    """
    pgq = ready_app(app)
    figures = pgq.stats()
    pgq.close()
    if json:
        print_json(plain(figures))
        return
    typer.echo("Queues")
    safe_table(figures["queues"], QUEUES, "  none")
    typer.echo("Tasks, jobs finished in the last 24 hours")
    safe_table(figures["tasks"], TASKS, "  none")
    typer.echo("Workers")
    safe_table(figures["workers"], WORKERS, "  none: pgq worker")
    typer.echo("Schedules")
    safe_table(figures["schedules"], SCHEDULES, "  none")

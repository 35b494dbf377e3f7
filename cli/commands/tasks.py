"""pgq tasks: list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..common import AppOption, JsonOption, load_app, print_json
from ..operating import safe_table

if TYPE_CHECKING:
    from pgqueue.tasks.task import Task

app = typer.Typer(help="Tasks: what this app can run.", no_args_is_help=True, rich_markup_mode=None)

SHOWN = ("name", "queue", "priority", "attempts", "timeout", "parameters")


@app.callback()
def tasks() -> None:
    """Tasks: what this app can run."""


@app.command("list")
def list_(app: AppOption = None, json: JsonOption = False) -> None:
    """List the tasks of the app; needs no database.

    Example: pgq tasks list --app shop.jobs:pgq
    """
    registry = load_app(app).tasks
    rows = [_row(registry.get(name)) for name in registry.names()]
    if json:
        print_json(rows)
    else:
        safe_table(rows, SHOWN, "this app has no tasks")


def _row(task: Task[Any]) -> dict[str, Any]:
    return {
        "name": task.name,
        "queue": task.options.queue,
        "priority": task.options.priority,
        "attempts": task.retry.attempts,
        "timeout": task.options.timeout,
        "parameters": sorted(task.signature.names),
    }

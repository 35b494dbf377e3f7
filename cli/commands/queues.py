"""pgq queues: list, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import operator, plain, safe_table

app = typer.Typer(
    help="Queues: what waits in them; pause and resume.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SHOWN = (
    "queue", "paused", "queued", "scheduled", "retrying", "blocked", "waiting", "running",
    "oldest_due", "paused_by", "pause_reason",
)  # fmt: skip

NameArgument = Annotated[str, typer.Argument(help="The queue's name.")]


@app.command("list")
def list_(app: AppOption = None, json: JsonOption = False) -> None:
    """List queues that hold live jobs or have settings.

    Example: pgq queues list
    """
    pgq = ready_app(app)
    rows = pgq.list_queues()
    pgq.close()
    if json:
        print_json(plain(rows))
    else:
        safe_table(rows, SHOWN, "no queues yet: enqueue a job")


@app.command("pause")
def pause(
    name: NameArgument,
    reason: Annotated[str | None, typer.Option(help="Why; shown to others.")] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Let no worker take from a queue, used or not; running jobs go on.

    Example: pgq queues pause email --reason 'the provider is down'
    """
    pgq = ready_app(app)
    changed = pgq.pause(name, reason=reason, by=operator())
    pgq.close()
    if json:
        print_json({"queue": name, "paused": True, "changed": changed})
    else:
        typer.echo(f"queue {name} {'is' if changed else 'was already'} paused")


@app.command("resume")
def resume(name: NameArgument, app: AppOption = None, json: JsonOption = False) -> None:
    """Let workers take from a paused queue again.

    Example: pgq queues resume email
    """
    pgq = ready_app(app)
    changed = pgq.resume(name, by=operator())
    pgq.close()
    if json:
        print_json({"queue": name, "paused": False, "changed": changed})
    else:
        typer.echo(f"queue {name} {'goes on' if changed else 'was not paused'}")

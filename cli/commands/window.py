"""pgq window: list, rerun."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app
from ..operating import LARGEST_ID, operator, plain, safe_table

app = typer.Typer(
    help="Windows: what schedules ran, and running it again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SHOWN = (
    "id", "schedule", "window_start", "window_end", "mode", "run", "state", "job_id", "started_at",
    "finished_at",
)  # fmt: skip


@app.command("list")
def list_(
    schedule: Annotated[str | None, typer.Option(help="Of this schedule.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state, such as failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List windows, newest first.

    Example: pgq window list --schedule digest --state failed
    """
    pgq = ready_app(app)
    rows = pgq.list_windows(schedule, state=state, limit=limit)
    pgq.close()
    if json:
        print_json(plain(rows))
    else:
        safe_table(rows, SHOWN, "no windows")


@app.command("rerun")
def rerun(
    window_id: Annotated[
        int, typer.Argument(min=1, max=LARGEST_ID, metavar="ID", help="A window's id.")
    ],
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run a window again; its new outcome takes the place of the old.

    Example: pgq window rerun 42
    """
    pgq = ready_app(app)
    job_id = pgq.rerun_window(window_id, by=operator())
    pgq.close()
    if json:
        print_json({"id": window_id, "job_id": job_id})
    else:
        typer.echo(f"window {window_id} runs again as job {job_id}")

"""pgq schedule: tick, list, add."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, load_app, parsed_json, print_json, print_table, shown
from ..operating import operator

app = typer.Typer(
    help="Schedules: cron expressions and windows.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = ("name", "cron", "timezone", "task", "enabled", "next_run_at", "last_run_at", "last_error")


@app.command("tick")
def tick(json: JsonOption = False, app: AppOption = None) -> None:
    """Do one pass over due schedules and exit: insert their windows, one job for each.

    Any number may run at once; a window is inserted once.

    Example: pgq schedule tick --json
    """
    pgq = load_app(app)
    ticked = pgq.tick()
    pgq.close()
    if json:
        print_json({"windows": ticked.windows, "jobs": ticked.jobs})
    else:
        typer.echo(f"{ticked.windows} windows, {ticked.jobs} jobs")


@app.command("list")
def list_(json: JsonOption = False, app: AppOption = None) -> None:
    """List the stored schedules.

    Example: pgq schedule list
    """
    pgq = load_app(app)
    rows = pgq.list_schedules()
    pgq.close()
    if json:
        print_json(rows)
    else:
        print_table(rows, SHOWN, "no schedules: pgq schedule add NAME --cron … --task …")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Its name; a schedule of that name is changed.")],
    cron: Annotated[str, typer.Option(help="A cron expression, such as '0 6,14,22 * * *'.")],
    task: Annotated[str, typer.Option(help="The task to enqueue for each window.")],
    timezone: Annotated[str, typer.Option(help="An IANA time zone.")] = "UTC",
    payload: Annotated[str, typer.Option(help="Arguments as a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's.")] = None,
    catch_up: Annotated[
        str, typer.Option(help="After a pause: all missed windows, the latest, or none.")
    ] = "all",
    delay: Annotated[float, typer.Option(help="Seconds from a window's end to its job.")] = 0,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Add a schedule, or change the one of that name.

    Example: pgq schedule add digest --cron '0 6,14,22 * * *' --timezone Europe/Bratislava
    --task run-window --payload '{"user_id": 1, "topic_id": 1}'
    """
    pgq = load_app(app)
    stored = pgq.put_schedule(
        name,
        cron=cron,
        timezone=timezone,
        task=task,
        payload=parsed_json(payload, "the payload"),
        queue=queue,
        catch_up=catch_up,
        delay=delay,
        by=operator(),
    )
    pgq.close()
    if json:
        print_json({"id": stored.id, "name": name, "next_run_at": stored.next_run_at})
    else:
        verb = "added" if stored.is_new else "changed"
        typer.echo(f"schedule {name} {verb}; next at {shown(stored.next_run_at)}")

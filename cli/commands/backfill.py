"""pgq schedule backfill, and the list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app, shown
from ..operating import LARGEST_ID, moment, operator, plain, safe, safe_table
from .schedule import NameArgument

if TYPE_CHECKING:
    from pgqueue.schedule.windows import Window

SHOWN = (
    "id", "schedule", "range_start", "range_end", "state", "windows", "waiting", "open",
    "completed", "failed", "reached",
)  # fmt: skip


def backfill(
    name: NameArgument,
    start: Annotated[
        str, typer.Option("--from", help="Windows from then on: day in its zone, or ISO 8601.")
    ],
    end: Annotated[
        str, typer.Option("--to", help="Windows that end by then: day in its zone, or ISO 8601.")
    ],
    concurrency: Annotated[int, typer.Option(help="So many at a time, 1 to 200.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the windows; change nothing.")
    ] = False,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, help="List the first so many windows.")
    ] = 100,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run the windows of a time in the past that were never run, a few at a time.

    The workers do it from now on; asked for again, an unfinished one goes on.

    Example: pgq schedule backfill digest --from 2030-01-01 --to 2030-02-01 --dry-run
    """
    from pgqueue.errors import ConfigError

    begin, until = moment(start, "--from"), moment(end, "--to")
    if begin is None or until is None:
        raise ConfigError("a backfill needs --from and --to")
    pgq = ready_app(app)
    if dry_run:
        windows = pgq.plan_backfill(name, begin, until)
        pgq.close()
        _show_plan(windows, count, json)
        return
    backfill_id = pgq.backfill(name, begin, until, concurrency=concurrency, by=operator())
    pgq.close()
    if json:
        print_json({"id": backfill_id, "schedule": name, "range_start": begin, "range_end": until})
    else:
        typer.echo(
            f"backfill {backfill_id} of {safe(name)}: {shown(begin)} to {shown(until)}; "
            "pgq schedule backfills shows how far it is"
        )


def _show_plan(windows: list[Window], count: int, json: bool) -> None:
    rows = [{"window_start": one.start, "window_end": one.end} for one in windows[:count]]
    if json:
        print_json({"count": len(windows), "windows": rows})
        return
    safe_table(rows, ("window_start", "window_end"), "nothing to fill in")
    first = f"; -n shows more than the first {count}" if len(windows) > count else ""
    typer.echo(f"{len(windows)} windows would run{first}")


def backfills(
    name: Annotated[str | None, typer.Argument(help="Of this schedule; without, of all.")] = None,
    cancel: Annotated[
        int | None, typer.Option(min=1, max=LARGEST_ID, metavar="ID", help="Stop this one.")
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List backfills and how far they are, or stop one.

    Example: pgq schedule backfills digest
    """
    pgq = ready_app(app)
    was_stopped = cancel is None or pgq.cancel_backfill(cancel, by=operator())
    rows = pgq.list_backfills(name)
    pgq.close()
    if json:
        print_json(plain(rows))
    else:
        if not was_stopped:
            typer.echo(f"backfill {cancel} had ended already")
        safe_table(rows, SHOWN, "no backfills")


def add_to(app: typer.Typer) -> None:
    """Make both commands of `pgq schedule`."""
    app.command("backfill")(backfill)
    app.command("backfills")(backfills)

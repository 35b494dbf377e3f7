"""pgq schedule backfill, and the list of them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app, shown
from ..operating import DryRunOption, instant, operator, plain, safe, safe_table
from .schedule import NameArgument

SHOWN = (
    "id", "schedule", "range_start", "range_end", "state", "windows", "waiting", "open",
    "completed", "failed", "reached",
)  # fmt: skip


def backfill(
    name: NameArgument,
    start: Annotated[str, typer.Option("--from", help="Windows that begin then: day or ISO 8601.")],
    end: Annotated[str, typer.Option("--to", help="Windows that end by then.")],
    concurrency: Annotated[int, typer.Option(min=1, help="So many at a time.")] = 1,
    dry_run: DryRunOption = False,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Run the windows of a time in the past that were never run, a few at a time.

    The workers do it from now on; asked for again, an unfinished one goes on.

    Example: pgq schedule backfill digest --from 2030-01-01 --to 2030-02-01 --dry-run
    """
    from pgqueue.errors import ConfigError

    begin, until = instant(start, "--from"), instant(end, "--to")
    if begin is None or until is None:
        raise ConfigError("a backfill needs --from and --to")
    pgq = ready_app(app)
    if dry_run:
        windows = pgq.plan_backfill(name, begin, until)
        pgq.close()
        rows = [{"window_start": one.start, "window_end": one.end} for one in windows]
        if json:
            print_json(rows)
        else:
            safe_table(rows, ("window_start", "window_end"), "nothing to fill in")
            typer.echo(f"{len(rows)} windows would run")
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


def backfills(
    name: Annotated[str | None, typer.Argument(help="Of this schedule; without, of all.")] = None,
    cancel: Annotated[int | None, typer.Option(metavar="ID", help="Stop this one.")] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """List backfills and how far they are, or stop one.

    Example: pgq schedule backfills digest
    """
    pgq = ready_app(app)
    if cancel is not None:
        pgq.cancel_backfill(cancel, by=operator())
    rows = pgq.list_backfills(name)
    pgq.close()
    if json:
        print_json(plain(rows))
    else:
        safe_table(rows, SHOWN, "no backfills")


def add_to(app: typer.Typer) -> None:
    """Make both commands of `pgq schedule`."""
    app.command("backfill")(backfill)
    app.command("backfills")(backfills)

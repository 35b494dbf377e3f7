"""pgq prune."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, print_json, ready_app


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be dropped, and change nothing.")
    ] = False,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Drop the days of finished jobs that the table `retention` lets go, and make days ahead.

    Workers do it every 10 minutes where their role owns the tables; elsewhere the owner runs this
    every day. Finished jobs are kept for 7 days, failed and cancelled ones for 30; change the
    table with update pgqueue.retention set keep = '3 days' where state_group = 'completed'.

    Example: pgq prune --dry-run
    """
    pgq = ready_app(app)
    if dry_run:
        became = {"would go": pgq.plan_prune()}
    else:
        pruned = pgq.prune()
        became = {"dropped": pruned.dropped, "postponed": pruned.postponed}
    pgq.close()
    if json:
        print_json(
            [{"partition_name": name, "became": what} for what in became for name in became[what]]
        )
        return
    if not any(became.values()):
        typer.echo("nothing is old enough to go")
    for what, names in became.items():
        for name in names:
            typer.echo(f"{what}: {name}")
    if became.get("postponed"):
        typer.echo("postponed days wait for a reader to end its transaction: run pgq prune again")

"""pgq migrate."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import JsonOption, print_json


def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead; needs no database.")
    ] = False,
    to: Annotated[str, typer.Option(help="A revision, or 'base' to drop everything.")] = "head",
    json: JsonOption = False,
) -> None:
    """Bring the database to this version's tables. Safe to run from many places at once.

    Example: pgq migrate            pgq migrate --sql > pgqueue.sql
    """
    from pgqueue import PgQueue
    from pgqueue.db import upgrade
    from pgqueue.settings import described_target

    pgq = PgQueue()
    if sql:
        typer.echo(upgrade.upgrade_sql(pgq.settings, to), nl=False)
        return
    conninfo = pgq.conninfo()
    revision = upgrade.move(pgq.settings, conninfo, to)
    pgq.close()
    schema = pgq.settings.schema_name
    if json:
        database = described_target(conninfo)
        print_json({"schema": schema, "revision": revision, "database": database})
    else:
        place = f"schema {schema} of {described_target(conninfo)}"
        typer.echo(f"{place} is at revision {revision or 'base'}")

"""pgq bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..common import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from ..benching import Measure

ROUNDED = 100
"""Figures from here on show no decimals."""

COLUMNS = ("measure", "value", "unit", "jobs", "seconds", "error")


def bench(
    jobs: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Jobs of each measurement, if time allows.")
    ] = 20_000,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Of each worker; PGQUEUE_CONCURRENCY, else 10."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    held_snapshot: Annotated[
        bool,
        typer.Option(
            "--held-snapshot", help="Drain again, three times, while a transaction stays open."
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            min=1, max=3600, help="What all measurements take at most; setting up comes on top."
        ),
    ] = 40.0,
    clean: Annotated[
        bool, typer.Option("--clean", help="Drop what a killed bench left behind, and end.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure the queue on your database: throughput, latency, WAL and dead rows.

    It works in tables of its own, in a schema beside the configured one, and drops them at the
    end, also after Ctrl-C: no job and no worker of yours takes part. But it loads the server that
    they share. Exit code 1 when something could not be measured.

    Example: pgq bench --held-snapshot
    """
    from dataclasses import asdict

    from ..bench_place import bench_app
    from ..bench_place import clean as drop

    pgq = bench_app()
    if clean:
        was_there = drop(pgq)
        became = "is dropped" if was_there else "is not there"
        typer.echo(f"schema {pgq.settings.schema_name} {became}")
        return
    from pgqueue.settings import described_target

    from ..bench_place import own_tables
    from ..benching import Bench, Plan

    plan = Plan(
        jobs=jobs,
        processes=processes,
        concurrency=concurrency,
        held_snapshot=held_snapshot,
        seconds=seconds,
    )
    say(
        f"this loads {described_target(pgq.conninfo())} for up to {seconds:g} s and some to set "
        f"up, in tables of its own (schema {pgq.settings.schema_name})"
    )
    with own_tables(pgq):
        found = Bench(pgq, plan, say).run()
    pgq.close()
    if json:
        print_json([asdict(one) for one in found])
    else:
        print_table([shown(one) for one in found], COLUMNS, "nothing was measured")
    if any(one.error for one in found):
        raise typer.Exit(1)


def say(text: str) -> None:
    """Not on stdout: that is for the figures."""
    typer.echo(f"pgq bench: {text}", err=True)


def shown(one: Measure) -> dict[str, object]:
    """A figure with as many digits as it deserves."""
    return {
        "measure": one.measure,
        "value": one.value if isinstance(one.value, str) else _number(one.value),
        "unit": one.unit,
        "jobs": "" if one.jobs is None else f"{one.jobs:,}",
        "seconds": "" if one.seconds is None else f"{one.seconds:.2f}",
        "error": one.error or "",
    }


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= ROUNDED or value == int(value) else f"{value:.3g}"

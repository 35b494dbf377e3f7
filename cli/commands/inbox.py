"""pgq inbox."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..common import JsonOption, print_json, print_table
from ..content import pipeline_app

SHOWN = ("id", "topic", "window_start", "window_end", "stories", "title")
WIDEST = 100
"""Columns of text beyond which lines are hard to read."""


def inbox(
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A digest's id, or 'latest'.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Of this topic only: its name or id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 20,
    html: Annotated[bool, typer.Option("--html", help="Show the digest as HTML.")] = False,
    json: JsonOption = False,
) -> None:
    """List the digests, newest first, or read one.

    Example: pgq inbox            pgq inbox latest
    """
    from pgqueue.pipeline.inbox import get_digest, list_digests

    pgq = pipeline_app()
    if wanted is None:
        rows = list_digests(pgq, topic=topic, limit=limit)
        pgq.close()
        if json:
            print_json(rows)
        else:
            print_table(rows, SHOWN, "no digests yet: pgq demo makes one, and so does pgq worker")
        return
    digest = get_digest(pgq, wanted, topic=topic)
    pgq.close()
    if json:
        print_json(digest)
    elif html:
        typer.echo(digest["html"], nl=False)
    else:
        typer.echo(as_text(digest), nl=False)


def as_text(digest: Mapping[str, Any]) -> str:
    """The digest as wide as the terminal, with the times of its topic's zone."""
    from pgqueue.pipeline.extra import needs_pipeline
    from pgqueue.schedule.cron import zone

    with needs_pipeline("reading digests"):
        from pgqueue.pipeline.render import render_text
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
    return render_text(digest["body"], width=width, zone=zone(digest["timezone"]))

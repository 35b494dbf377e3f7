"""pgq sources: add, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common import JsonOption, print_json, print_table
from ..content import pipeline_app

app = typer.Typer(
    help="Sources: the feeds that a topic reads.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = ("id", "topic", "name", "url", "health", "items", "last_polled_at", "last_error")


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="The address of a feed, or a file of this machine.")],
    topic: Annotated[str, typer.Option(help="The topic's name or id.")],
    name: Annotated[str, typer.Option(help="Who publishes it, as digests should say.")] = "",
    json: JsonOption = False,
) -> None:
    """Add a feed (RSS, Atom, RDF or JSON Feed) to a topic.

    Example: pgq sources add https://example.com/feed.xml --topic Energy --name "The Example"
    """
    from pgqueue.pipeline.topics import add_source

    pgq = pipeline_app()
    url, folder = _with_folder(url)
    source = add_source(pgq, url, topic=topic, name=name, files_under=folder)
    pgq.close()
    if json:
        print_json({"id": source.id, "topic_id": source.topic_id, "url": url})
    else:
        verb = "added to" if source.is_new else "was already in"
        typer.echo(f"source {source.id} {verb} topic {source.topic_id}")


@app.command("list")
def list_(
    topic: Annotated[str | None, typer.Option(help="Of this topic only: its name or id.")] = None,
    json: JsonOption = False,
) -> None:
    """List the sources, how they are, and what was last wrong with them.

    Example: pgq sources list --topic Energy
    """
    from pgqueue.pipeline.topics import list_sources

    pgq = pipeline_app()
    rows = list_sources(pgq, topic=topic)
    pgq.close()
    if json:
        print_json(rows)
    else:
        print_table(rows, SHOWN, "no sources: pgq sources add URL --topic NAME")


def _with_folder(given: str) -> tuple[str, Path | None]:
    """The address, and for a file the folder that the worker may read because you say so."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    if "://" not in given and Path(given).is_file():
        given = Path(given).resolve().as_uri()
    if not given.lower().startswith("file:"):
        return given, None
    return given, Path(url2pathname(urlsplit(given).path)).resolve().parent

"""pgq topics: add, list."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import JsonOption, print_json, print_table, shown
from ..content import pipeline_app

app = typer.Typer(
    help="Topics: what is read about, and when.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = ("id", "name", "timezone", "window_times", "keywords", "sources", "last_digest")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Its name; a topic of that name is changed.")],
    timezone: Annotated[str, typer.Option(help="The IANA time zone of its times.")] = "UTC",
    keyword: Annotated[
        list[str] | None, typer.Option(help="What it is about; may be repeated.")
    ] = None,
    times: Annotated[
        str, typer.Option(help="When its windows end, each day.")
    ] = "06:00,14:00,22:00",
    embedder: Annotated[
        str, typer.Option(help="How texts are compared: auto, hash-2048, hash-512, wordllama-256.")
    ] = "auto",
    json: JsonOption = False,
) -> None:
    """Add a topic and its schedule; each of its windows becomes a digest.

    Example: pgq topics add "Energy" --timezone Europe/Bratislava --keyword wind --keyword solar
    """
    from pgqueue.pipeline.topics import add_topic

    pgq = pipeline_app()
    topic = add_topic(
        pgq,
        name,
        timezone=timezone,
        keywords=keyword or (),
        times=times.split(","),
        embedder=embedder,
    )
    pgq.close()
    if json:
        print_json({"id": topic.id, "name": name, "next_run_at": topic.next_run_at})
        return
    verb = "added" if topic.is_new else "changed"
    typer.echo(f"topic {topic.id} {verb}; its next window ends at {shown(topic.next_run_at)}")
    if topic.is_new:
        typer.echo(f"give it feeds: pgq sources add URL --topic {topic.id}")


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """List the topics.

    Example: pgq topics list
    """
    from pgqueue.pipeline.topics import list_topics

    pgq = pipeline_app()
    rows = list_topics(pgq)
    pgq.close()
    if json:
        print_json(rows)
    else:
        print_table(rows, SHOWN, "no topics: pgq topics add NAME --keyword …, or pgq demo")

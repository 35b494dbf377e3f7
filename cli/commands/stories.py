"""pgq stories: list, search."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import JsonOption, print_json, print_table
from ..content import pipeline_app

app = typer.Typer(
    help="Stories: what several reports tell of.", no_args_is_help=True, rich_markup_mode=None
)

LISTED = ("id", "topic", "title", "status", "item_count", "copy_count", "last_item_at")
FOUND = ("id", "similarity", "topic", "title", "status", "item_count", "last_item_at")
TopicOption = Annotated[
    str | None, typer.Option(help="Of this topic only: its name or id.", show_default=False)
]


@app.command("list")
def list_(
    topic: TopicOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to list.")] = 20,
    json: JsonOption = False,
) -> None:
    """List the stories, the one with the newest report first.

    Example: pgq stories list --topic Energy
    """
    from pgqueue.pipeline.stories import list_stories

    pgq = pipeline_app()
    rows = list_stories(pgq, topic=topic, limit=limit)
    pgq.close()
    if json:
        print_json(rows)
    else:
        print_table(rows, LISTED, "no stories yet: pgq demo makes some, and so does pgq worker")


@app.command("search")
def search(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    topic: TopicOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100, help="How many to show.")
    ] = 10,
    json: JsonOption = False,
) -> None:
    """Show the stories nearest to a text, nearest first.

    Where pgvector is in the database its index is used; elsewhere every vector is compared.

    Example: pgq stories search "wind farms at sea" --topic Energy -n 5
    """
    from pgqueue.pipeline.stories import search_stories

    pgq = pipeline_app()
    rows = search_stories(pgq, text, topic=topic, limit=limit)
    pgq.close()
    if json:
        print_json(rows)
        return
    shown = [{**row, "similarity": f"{row['similarity']:.2f}"} for row in rows]
    print_table(shown, FOUND, "no story is near to that: pgq stories list shows what there is")
    if rows:
        typer.echo(f"searched by {', '.join(sorted({row['searched_by'] for row in rows}))}")

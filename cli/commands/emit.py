"""pgq emit."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import AppOption, JsonOption, any_json, print_json, ready_app
from ..operating import safe


def emit(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="The event's name, such as order-paid.")
    ],
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of what: an order's id, for example.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="JSON", help="What it carries, any JSON.")
    ] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Say that something has happened: jobs that wait for this event of this key go on.

    It counts for every job that was created before, also for one that comes to wait later.

    Example: pgq emit order-paid 42 '{"amount": 12}'
    """
    carried = None if payload is None else any_json(payload, "the payload")
    pgq = ready_app(app)
    event_id = pgq.emit(event, key, carried)
    pgq.close()
    if json:
        print_json({"id": event_id, "event": event, "key": key})
    else:
        typer.echo(f"event {event_id}: {safe(event)} of {safe(key)}")

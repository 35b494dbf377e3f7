"""pgq enqueue."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import typer

from ..common import AppOption, JsonOption, load_app, parsed_json, print_json


def enqueue(
    task: Annotated[str, typer.Argument(help="The task's name, such as run-window.")],
    payload: Annotated[str, typer.Argument(help="Its arguments as a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, higher first.")] = None,
    run_at: Annotated[
        str | None, typer.Option(help="Not before this time, ISO 8601 with zone.")
    ] = None,
    delay: Annotated[float | None, typer.Option(help="Not before so many seconds.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose work it is.")] = None,
    unique_key: Annotated[
        str | None, typer.Option(help="Where a live job has this key, nothing is inserted.")
    ] = None,
    unique_mode: Annotated[
        str | None,
        typer.Option(
            help="When the key is taken: skip, replace (the waiting job's payload) or raise."
        ),
    ] = None,
    unique_for: Annotated[
        float | None,
        typer.Option(help="The key stays taken for so many seconds, its job finished or not."),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one try may take.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="Cancelled if not started by then, ISO 8601 with zone.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    app: AppOption = None,
    json: JsonOption = False,
) -> None:
    """Insert a job.

    Example: pgq enqueue send-welcome '{"user_id": 1}' --priority 8
    """
    from pgqueue.errors import ConfigError

    pgq = load_app(app)
    given = {
        "queue": queue,
        "priority": priority,
        "run_at": _instant(run_at, "--run-at"),
        "delay": delay,
        "tenant": tenant,
        "unique_key": unique_key,
        "unique_mode": unique_mode,
        "unique_for": unique_for,
        "timeout": timeout,
        "expires_at": _instant(expires_at, "--expires-at"),
        "tags": tag,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if app is None and not pgq.settings.app and task not in pgq.tasks:
        raise ConfigError(
            f"task {task!r} is not one of the built-in pipeline's: name your app with "
            "--app MODULE:ATTR or PGQUEUE_APP"
        )
    job = pgq.enqueue(task, parsed_json(payload, "the payload"), **options)
    pgq.close()
    if json:
        print_json({"id": job.id, "task": job.task, "queue": job.queue, "state": job.state})
    else:
        typer.echo(f"job {job.id}: {job.task} in queue {job.queue}")


def _instant(text: str | None, option: str) -> datetime | None:
    from pgqueue.errors import ConfigError

    if text is None:
        return None
    with suppress(ValueError):
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant
    raise ConfigError(
        f"{option} {text!r} is not a time: use ISO 8601 with zone, 2030-01-31T08:00:00+01:00"
    )

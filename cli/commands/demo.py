"""pgq demo."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import JsonOption, print_json
from ..content import pipeline_app
from .inbox import as_text

if TYPE_CHECKING:
    from pgqueue import PgQueue
    from pgqueue.pipeline.demo import Demo

    from ..progress import Progress

PATIENCE = 300.0
"""Seconds that a window may take; public feeds are fetched within 20 each, 8 at once."""

INTERRUPTED = 130


def demo(
    live: Annotated[
        bool, typer.Option("--live", help="Read public feeds instead of the shipped samples.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the whole thing: sample feeds, one scheduler tick, a worker, and the digest it makes.

    Without a database URL it starts a private Postgres. A second run shows the same digest.

    Example: pgq demo
    """
    from pgqueue.pipeline.extra import needs_pipeline

    from ..progress import Progress

    with needs_pipeline("pgq demo"):
        from pgqueue.pipeline import run_window  # noqa: F401 - asked before anything is set up

    pgq = pipeline_app()
    with Progress() as progress:
        digest, failing = _play(pgq, progress, live=live)
    pgq.close()
    if json:
        print_json({**digest, "failing_sources": failing})
        return
    typer.echo(as_text(digest))
    for source in failing:
        typer.echo(f"source failed: {source['name'] or source['url']}: {source['last_error']}")
    typer.echo(_what_next(digest))


def _play(pgq: PgQueue, progress: Progress, *, live: bool) -> tuple[Any, list[dict[str, Any]]]:
    from pgqueue.db import upgrade
    from pgqueue.pipeline import demo as stage
    from pgqueue.pipeline.topics import list_sources

    progress.say("starting Postgres" if pgq.settings.database_url is None else "connecting")
    conninfo = pgq.conninfo()
    progress.say("migrating")
    upgrade.move(pgq.settings, conninfo)
    progress.say("setting up the topic")
    plan = stage.prepare_live(pgq) if live else stage.prepare(pgq, stage.sample_folder(pgq))
    ticked = pgq.tick()
    progress.line(f"schedule ticked: {ticked.windows} new windows, {ticked.jobs} new jobs")
    digest = _work(pgq, plan, progress)
    stage.settle(pgq, plan)
    sources = list_sources(pgq, topic=str(plan.topic_id))
    return digest, [source for source in sources if source["failures"]]


def _work(pgq: PgQueue, plan: Demo, progress: Progress) -> dict[str, Any]:
    """Run a worker until the window has its digest, made here or by another process."""
    from pgqueue.errors import PgQueueError
    from pgqueue.pipeline.demo import check_job, due_job, find_demo_digest

    give_up, job_id = time.monotonic() + PATIENCE, 0
    while (digest := find_demo_digest(pgq, plan)) is None:
        job_id = job_id or due_job(pgq, plan)
        check_job(pgq, plan, job_id)
        if time.monotonic() > give_up:
            raise PgQueueError(
                f"the window is not done after {PATIENCE:g} s; a worker goes on with it: "
                "look again with `pgq inbox latest`"
            )
        worker = pgq.worker(queues=("pipeline",), concurrency=2, burst=True, scheduler=False)
        asyncio.run(worker.run())
        if progress.interrupted:
            pgq.close()
            _leave(lingering=worker.has_lingering_handlers)
        time.sleep(0.2)
    return digest


def _leave(*, lingering: bool) -> None:
    sys.stderr.flush()
    if lingering:
        # A thread that fetches cannot be stopped; what it still writes is fenced.
        os._exit(INTERRUPTED)
    raise typer.Exit(INTERRUPTED)


def _what_next(digest: dict[str, Any]) -> str:
    return (
        "\nThis was a real run: window, job and digest are rows in Postgres. Try next:\n"
        f"  pgq inbox {digest['id']} --html > digest.html\n"
        '  pgq topics add "My topic" --keyword python --timezone Europe/Bratislava\n'
        '  pgq sources add https://example.com/feed.xml --topic "My topic"\n'
        "  pgq worker            # ticks schedules and runs their windows until you stop it"
    )

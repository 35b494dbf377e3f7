"""How one job looks to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from .common import shown
from .operating import safe, safe_table

# What most jobs do not have is left out; these have pages of their own below.
_APART = ("errors", "timeline", "steps", "logs", "progress", "id")
_EMPTY: tuple[Any, ...] = (None, [], {}, False)


def print_job(job: Mapping[str, Any], causes: Sequence[Mapping[str, Any]]) -> None:
    """Fields, progress, what happened, the log, and why it does not run."""
    typer.echo(f"job {job['id']}: {safe(job['task'])}, {job['status']}")
    for name, value in job.items():
        if name not in _APART and value not in _EMPTY:
            typer.echo(f"  {name:<14} {safe(shown(value))}")
    if progress := job["progress"]:
        message = safe(str(progress.get("message") or ""))
        typer.echo(f"  {'progress':<14} {progress.get('percent')} % {message}".rstrip())
    typer.echo("")
    safe_table(job["timeline"], ("at", "event", "attempt", "message"), "nothing happened yet")
    if job["steps"]:
        columns = ("kind", "name", "attempt", "finished_at", "wake_at", "result")
        safe_table(job["steps"], columns, "")
    if job["logs"]:
        safe_table(job["logs"], ("at", "attempt", "level", "message"), "")
    if job["finished_at"] is None:
        print_causes(causes)


def print_causes(causes: Sequence[Mapping[str, Any]]) -> None:
    """Each cause on a line."""
    for cause in causes:
        typer.echo(f"{cause['cause']}: {safe(cause['message'])}")

"""The command tree, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main
from pgqueue.cli.main import app


def commands() -> list[tuple[str, Any, Any]]:
    """Every command and group: (`pgq schedule tick`, command, its context), in the tree's order."""
    root = typer.main.get_command(app)
    return list(_walk(root, _context(root, "pgq", None)))


def _walk(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    yield context.command_path, command, context
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, _context(child, name, context))


def _context(command: Any, name: str, parent: Any) -> Any:
    # A fixed width: the reference must not depend on the terminal of who writes it.
    settings = {**command.context_settings, "terminal_width": 90}
    return command.context_class(command, info_name=name, parent=parent, **settings)

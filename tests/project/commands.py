"""The command tree, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main
from pgqueue.cli.main import app


def commands() -> list[tuple[str, Any, Any]]:
    """Every command and group: (`pgq schedule tick`, command, its context), in the tree's order."""
    root = typer.main.get_command(app)
    return list(_walk(root, root.context_class(root, info_name="pgq", max_content_width=90)))


def _walk(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    yield context.command_path, command, context
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, child.context_class(child, info_name=name, parent=context))

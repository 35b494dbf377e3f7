"""docs/cli.md, out of the commands' own help: `make docs` writes it anew."""

from __future__ import annotations

from project.commands import commands
from project.places import ROOT

PAGE = ROOT / "docs" / "cli.md"
_HEAD = """\
# The `pgq` command

Made by `make docs` from the commands' own `--help`. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def reference() -> str:
    """The page as it should be."""
    sections = [
        f"## {path}\n\n```text\n{_help(path, command, context)}\n```\n"
        for path, command, context in commands()
    ]
    return "\n".join([_HEAD, *sections])


def _help(path: str, command: object, context: object) -> str:
    text = command.get_help(context)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

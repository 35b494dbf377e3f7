"""Every command explains itself, is written about, and starts quickly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from project.cli_reference import PAGE, reference
from project.commands import commands
from project.places import ROOT

TREE = commands()
PATHS = [path for path, _, _ in TREE]
RUNNABLE = {
    path: command
    for path, command, _ in TREE
    if getattr(command, "invoke_without_command", True)  # a group that runs by itself counts
}
HEAVY = ("sqlalchemy", "alembic", "numpy", "fastapi")


@pytest.mark.parametrize("path", RUNNABLE)
def test_a_command_shows_an_example_of_itself(path: str) -> None:
    assert f"Example: {path}" in (RUNNABLE[path].help or "")


@pytest.mark.parametrize(("path", "command"), [(path, command) for path, command, _ in TREE])
def test_a_command_says_what_it_does_and_what_each_option_does(path: str, command: Any) -> None:
    assert command.help
    silent = [part.name for part in command.params if not getattr(part, "help", None)]
    assert silent == [], f"{path}: options without help"


@pytest.mark.parametrize("path", RUNNABLE)
def test_a_command_is_written_about_for_people(path: str) -> None:
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page != PAGE)]
    assert any(path in page.read_text(encoding="utf-8") for page in pages), f"no page names {path}"


def test_the_command_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "make docs writes it anew"


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from pgqueue.cli.main import main\n"
        "sys.argv = ['pgq', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as done:\n"
        "    assert done.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "worker" in answer.stdout
    assert answer.stderr.strip() == "[]"

"""Files and functions stay small, and nothing of the writer's machine is in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from project.places import ROOT, python_files, tracked_files

FILE_LINES = 400
FUNCTION_LINES = 40

_COLUMNS = "a list of columns is read from top to bottom, like the table it is"
LONG_FUNCTIONS = {
    "pgqueue/db/flow_tables.py": _COLUMNS,
    "pgqueue/db/tables.py": _COLUMNS,
    "pgqueue/pipeline/tables.py": _COLUMNS,
}
"""File and why its functions may be longer."""

LONG_FILES: dict[str, str] = {"pgqueue/db/tables.py": _COLUMNS}
"""File and why it may be longer."""

# Put together here, so that this file does not find itself.
MACHINE_PATHS = re.compile("|".join("/" + folder for folder in (r"work/", r"root/\S")))


def test_no_file_is_longer_than_a_person_reads() -> None:
    long = [
        f"{_name(file)}: {lines}"
        for file in [
            *python_files("pgqueue", "cli", "migrations", "tests"),
            *ROOT.glob("pgqueue/**/*.sql"),
        ]
        if (lines := file.read_text(encoding="utf-8").count("\n")) > FILE_LINES
        and _name(file) not in LONG_FILES
    ]
    assert long == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{_name(file)}: {name} has {lines}"
        for file in python_files("pgqueue", "cli", "migrations")
        if _name(file) not in LONG_FUNCTIONS
        for name, lines in _functions(file)
        if lines > FUNCTION_LINES
    ]
    assert long == []


def test_every_exception_is_still_needed() -> None:
    needless = [
        name
        for name in LONG_FUNCTIONS
        if all(lines <= FUNCTION_LINES for _, lines in _functions(ROOT / name))
    ]
    assert needless == []


def test_no_path_of_somebodys_machine_is_in_a_file() -> None:
    found = [
        f"{_name(file)}:{number}: {line.strip()}"
        for file in tracked_files()
        for number, line in enumerate(_text(file).splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []


def _functions(file: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of each function's body, without its docstring: a signature is no code."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1:2] if ast.get_docstring(node) else node.body[:1]
            start = first[0].lineno if first else node.end_lineno
            yield node.name, (node.end_lineno or 0) - (start or 0) + 1


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""

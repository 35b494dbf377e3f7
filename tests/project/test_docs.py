"""What the pages show works: Python runs, SQL runs in psql, commands and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pgqueue import PgQueue
from project.commands import commands
from project.places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
TREE = {path: command for path, command, _ in commands()}


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks of that language, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def with_blocks(language: str) -> list[str]:
    return [name for name in NAMES if blocks(ROOT / name, language)]


@pytest.mark.parametrize("name", with_blocks("python"))
def test_the_python_of_a_page_runs_from_top_to_bottom(
    name: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGQUEUE_DATABASE_URL", database)
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {"__name__": "page"}
    for block in blocks(ROOT / name, "python"):
        # dont_inherit: a reader's file has no `from __future__` of ours.
        exec(compile(block, name, "exec", dont_inherit=True), page)  # noqa: S102 - our own pages
    for value in page.values():
        if isinstance(value, PgQueue):
            value.close()


def test_every_cause_that_why_gives_is_explained() -> None:
    code = (ROOT / "pgqueue/engine/why.py").read_text(encoding="utf-8")
    causes = set(re.findall(r'Cause\(\s*"([a-z-]+)"', code))
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    explained = {
        cause
        for row in re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", page, re.MULTILINE)
        for cause in re.findall(r"`([a-z-]+)`", row)
    }
    assert causes
    assert causes <= explained


@pytest.mark.parametrize("name", with_blocks("sql"))
def test_the_sql_of_a_page_works_in_plain_psql(name: str, database: str, psql: Path) -> None:
    script = "\n".join(blocks(ROOT / name, "sql"))
    answer = subprocess.run(
        [psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", database],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("name", with_blocks("sh"))
def test_the_commands_of_a_page_exist_with_their_options(name: str) -> None:
    for line in "".join(blocks(ROOT / name, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        words = words[next((n for n, word in enumerate(words) if word == "pgq"), len(words)) :]
        if not words:
            continue
        path = max((p for p in TREE if words[: p.count(" ") + 1] == p.split()), key=len)
        assert path != "pgq", f"{line}: no such command"
        known = {option for part in TREE[path].params for option in part.opts}
        used = {word for word in words if word.startswith("--")}
        assert used <= known, line


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    missing = [target for target in targets if not ((ROOT / name).parent / target).exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_first_one() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES[1:] if name not in readme] == []

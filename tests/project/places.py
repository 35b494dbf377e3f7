"""Where things stand in the checkout, and which files belong to it."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PGQ = Path(sys.executable).with_name("pgq")
"""The command, as it was installed beside this interpreter."""


@cache
def tracked_files() -> tuple[Path, ...]:
    """The files that git knows of; skips the test where git cannot tell (an export, no git)."""
    try:
        answer = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the files here: {error}")
    # A file that is deleted and not yet committed is still listed.
    return tuple(
        path for name in answer.stdout.split("\0") if name and (path := ROOT / name).is_file()
    )


def python_files(*folders: str) -> list[Path]:
    """The Python files under these folders of the checkout, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))

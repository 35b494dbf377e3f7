"""Checks the Python of README and docs as a reader's own programs: mypy, strict."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from project.places import ROOT
from project.test_docs import NAMES, blocks


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            if parts := blocks(ROOT / name, "python"):
                module = name.removesuffix(".md").replace("/", "_").replace("-", "_").lower()
                Path(folder, f"{module}_md.py").write_text("\n".join(parts), encoding="utf-8")
        pages = sorted(str(page) for page in Path(folder).iterdir())
        command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *pages]
        return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

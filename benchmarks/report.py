"""The command `python -m benchmarks.report [FILE…]`: tables and plots of the page from raw results.

Needs matplotlib and nothing else; setup.sh makes an environment with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import plots, tables
from benchmarks.medians import Medians
from benchmarks.results import read

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
FOLDER = DOCS / "benchmarks"


def write(paths: list[Path]) -> None:
    """Write the tables of the page and its plots anew; without paths from all raw results kept."""
    machines, results = read(paths or sorted(FOLDER.glob("*.jsonl")))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(tables.filled(page, machines, results), encoding="utf-8")
    plots.draw(Medians(results), FOLDER)


if __name__ == "__main__":
    write([Path(word) for word in sys.argv[1:]])

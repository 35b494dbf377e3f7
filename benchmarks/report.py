"""The command `python -m benchmarks.report [FILE…]`: the pages' tables and plots from raw results.

Needs matplotlib and nothing else; setup.sh makes an environment with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import plots, tables
from benchmarks.medians import Medians
from benchmarks.results import read

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "benchmarks.md", DOCS.parent / "README.md")
FOLDER = DOCS / "benchmarks"


def write(paths: list[Path]) -> None:
    """Write the tables of the pages and the plots anew; without paths from all raw results kept."""
    machines, results = read(paths or sorted(FOLDER.glob("*.jsonl")))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(tables.filled(text, machines, results), encoding="utf-8")
    plots.draw(Medians(results), FOLDER)


if __name__ == "__main__":
    write([Path(word) for word in sys.argv[1:]])

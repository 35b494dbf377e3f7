"""docs/benchmarks.md says what was measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks import tables
from benchmarks.results import read

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_what_is_in_the_raw_results() -> None:
    machines, results = read(sorted((DOCS / "benchmarks").glob("*.jsonl")))
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert tables.filled(page, machines, results) == page, "run make bench-report"

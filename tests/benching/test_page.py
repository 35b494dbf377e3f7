"""docs/benchmarks.md and the README say what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.results import read

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["docs/benchmarks.md", "README.md"])
def test_the_page_shows_what_is_in_the_raw_results(name: str) -> None:
    machines, results = read(sorted((DOCS / "benchmarks").glob("*.jsonl")))
    page = (DOCS.parent / name).read_text(encoding="utf-8")
    assert tables.filled(page, machines, results) == page, "run make bench-report"

"""Clustering against 2,413 labelled headlines and 60 unrelated articles."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgqueue.pipeline.cluster import Item, cluster
from pgqueue.pipeline.embed import choose, present, text_of
from pgqueue.pipeline.feeds import parse
from pgqueue.pipeline.items import items_of
from pgqueue.pipeline.samples import write_samples

ROOT = Path(__file__).resolve().parents[2]
HEADLINES = ROOT.parent / "shared/data/stories/uci_news_dev.csv"
ARTICLES = ROOT.parent / "shared/data/articles/aeb/ground-truth.json"

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    # Dataclasses look their module up by name while it runs, so it borrows the name of this one.
    return runpy.run_path(str(ROOT / "benchmarks/stories.py"), run_name=__name__)


@pytest.mark.skipif(not HEADLINES.exists(), reason="shared/data/stories is not on this machine")
@pytest.mark.parametrize(
    ("name", "floor"), [("hash-2048", 0.80), ("hash-512", 0.79), ("wordllama-256", 0.78)]
)
def test_stories_agree_with_the_labels(benchmark: dict[str, Any], name: str, floor: float) -> None:
    if name not in present():
        pytest.skip(f"the extra of {name} is not installed")
    score, _ = benchmark["measure"](benchmark["read"](HEADLINES), name, timedelta(hours=8))
    assert score.f1 >= floor


def test_bcubed_is_one_for_the_truth_and_falls_for_lumping(benchmark: dict[str, Any]) -> None:
    bcubed = benchmark["bcubed"]
    assert bcubed([1, 1, 2], ["a", "a", "b"]).f1 == 1
    assert bcubed([1, 1, 1], ["a", "a", "b"]).precision == pytest.approx(5 / 9)
    assert bcubed([1, 2, 3], ["a", "a", "b"]).recall == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", present())
def test_the_sample_feeds_on_one_topic_give_their_stories_and_no_lump(
    name: str, tmp_path: Path
) -> None:
    embedder, end = choose(name), NOON + timedelta(hours=8)
    items: list[Item] = []
    for path in write_samples(tmp_path, window_start=NOON, window_end=end):
        url = f"https://feeds.example/{path.name}"
        entries = parse(path.read_bytes(), url=url).entries
        for new in items_of(entries, source_url=url, first_seen_at=end):
            vector = embedder.embed([text_of(new.title, new.text)])[0]
            number = len(items) + 1
            items.append(Item(number, new.belongs_at, new.title, new.text, vector))
    plan = cluster(items, [], join=embedder.join, merge=embedder.merge, window_end=end)
    ferry = {item.id for item in items if "ferry Aurelia" in item.title}
    homes = {entry.item_id: entry.story_id for entry in plan.assignments}
    assert len(ferry) == 4
    assert len({homes[number] for number in ferry}) == 1
    assert 15 <= len(plan.stories) <= 20
    assert max(story.count for story in plan.stories) <= 6


@pytest.mark.skipif(not ARTICLES.exists(), reason="shared/data/articles is not on this machine")
def test_sixty_articles_about_nearly_sixty_things_are_not_lumped_together() -> None:
    embedder, items = choose("hash-2048"), []
    pages = json.loads(ARTICLES.read_text(encoding="utf-8"))
    for number, key in enumerate(sorted(pages), 1):
        title, _, text = pages[key]["articleBody"].strip().partition("\n")
        vector = embedder.embed([text_of(title[:100], text)])[0]
        items.append(Item(number, NOON, title[:100], text, vector))
    plan = cluster(items, [], join=embedder.join, merge=embedder.merge, window_end=NOON)
    assert len(plan.stories) >= 48
    assert max(story.count for story in plan.stories) <= 4


def test_the_measuring_script_names_a_missing_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/stories.py"), str(tmp_path / "none.csv")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not there" in done.stderr

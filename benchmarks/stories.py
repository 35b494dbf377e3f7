"""Measure the embedders and the clustering on labelled headlines: BCubed F1 and headlines/s.

Run: python benchmarks/stories.py [CSV]   (default: ../shared/data/stories/uci_news_dev.csv)
The table has the columns id, published_ms, title, publisher, url, story. It is read in its order
of publishing, once as a single window and once in windows of 8 hours, as production does.
BCubed: Bagga and Baldwin 1998. Thresholds were tuned on this same table: read F1 as optimistic.
Each embedder is timed on its first pass; the second hash one profits from the words of the first.
"""

# ruff: noqa: T201 - a script whose output is its report
from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgqueue.pipeline.cluster import Item, Known, Plan, Story, cluster
from pgqueue.pipeline.embed import Embedder, choose, present

DATA = Path(__file__).resolve().parents[2] / "shared/data/stories/uci_news_dev.csv"


@dataclass(frozen=True)
class Score:
    """BCubed precision, recall and F1, and how many stories were found."""

    precision: float
    recall: float
    stories: int

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["published_ms"]))


def bcubed(found: Sequence[int], gold: Sequence[str]) -> Score:
    """Return the BCubed score of found story ids against gold ones, item by item."""
    pairs = Counter(zip(found, gold, strict=True))
    of_found, of_gold = Counter(found), Counter(gold)
    precision = sum(n * n / of_found[f] for (f, _), n in pairs.items()) / len(found)
    recall = sum(n * n / of_gold[g] for (_, g), n in pairs.items()) / len(gold)
    return Score(precision, recall, len(of_found))


def items_of(rows: Sequence[dict[str, str]], embedder: Embedder) -> list[Item]:
    vectors = embedder.embed([row["title"] for row in rows])
    return [
        Item(
            id=int(row["id"]),
            published_at=datetime.fromtimestamp(int(row["published_ms"]) / 1000, UTC),
            title=row["title"],
            text="",
            vector=vector,
            canonical_url=row["url"],
            publisher=row["publisher"],
        )
        for row, vector in zip(rows, vectors, strict=True)
    ]


class Shelf:
    """What a database would hold between windows."""

    def __init__(self) -> None:
        self.stories: dict[int, Story] = {}
        self.story_of: dict[int, int] = {}
        self.known: list[Known] = []

    def write(self, plan: Plan, items: Iterable[Item]) -> None:
        ids = {story.id: abs(story.id) for story in plan.stories}
        for story in plan.stories:
            self.stories[ids[story.id]] = replace(story, id=ids[story.id])
        for merge in plan.merges:
            del self.stories[merge.loser]
            self._move(merge.loser, merge.winner)
        for entry in plan.assignments:
            self.story_of[entry.item_id] = ids.get(entry.story_id, entry.story_id)
        copies = {entry.item_id: entry.duplicate_of for entry in plan.assignments}
        self.known += [self._known(item, copies[item.id]) for item in items]

    def _move(self, loser: int, winner: int) -> None:
        self.story_of = {i: winner if s == loser else s for i, s in self.story_of.items()}
        self.known = [
            replace(entry, story_id=winner) if entry.story_id == loser else entry
            for entry in self.known
        ]

    def _known(self, item: Item, duplicate_of: int | None) -> Known:
        story_id = self.story_of[item.id]
        return Known(
            item.id, story_id, item.published_at, item.title, item.text, item.canonical_url,
            item.content_hash, duplicate_of,
        )  # fmt: skip


def run(items: Sequence[Item], embedder: Embedder, span: timedelta) -> Shelf:
    """Cluster the items window by window and return what the database would hold."""
    shelf = Shelf()
    start = min(item.published_at for item in items)
    while todo := [item for item in items if item.id not in shelf.story_of]:
        start += span
        now = [item for item in todo if item.published_at < start]
        plan = cluster(
            now, shelf.stories.values(), shelf.known,
            join=embedder.join, merge=embedder.merge, window_end=start,
        )  # fmt: skip
        shelf.write(plan, now)
    return shelf


def measure(rows: Sequence[dict[str, str]], name: str, span: timedelta) -> tuple[Score, float]:
    """Return the score and the seconds that clustering took."""
    embedder = choose(name)
    items = items_of(rows, embedder)
    begun = time.perf_counter()
    shelf = run(items, embedder, span)
    took = time.perf_counter() - begun
    return bcubed([shelf.story_of[item.id] for item in items], [row["story"] for row in rows]), took


def speed(rows: Sequence[dict[str, str]], name: str) -> float:
    embedder = choose(name)
    titles = [row["title"] for row in rows]
    begun = time.perf_counter()
    embedder.embed(titles)
    return len(titles) / (time.perf_counter() - begun)


def main(path: Path) -> int:
    if not path.exists():
        print(f"{path} is not there: give the path of a labelled table", file=sys.stderr)
        return 1
    rows = read(path)
    print(f"{len(rows)} headlines, {len({row['story'] for row in rows})} stories")
    print("embedder        window    B3 F1  precision  recall  stories  cluster s  headlines/s")
    for name in present():
        rate = speed(rows, name)
        for label, span in (("one", timedelta(days=30)), ("8 hours", timedelta(hours=8))):
            score, took = measure(rows, name, span)
            print(
                f"{name:15} {label:9} {score.f1:5.3f}  {score.precision:9.3f}  {score.recall:6.3f}"
                f"  {score.stories:7}  {took:9.2f}  {rate:11,.0f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA))

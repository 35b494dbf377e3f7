"""Real feeds, and feeds other projects test with; they stay outside the project."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pgqueue.pipeline.feeds import Feed, FeedError, parse

DATA = Path(__file__).parents[3] / "shared" / "data" / "feeds"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="real feeds (../shared/data/feeds) are not on this machine"
)
# Parts of feeds that their projects test other code with, and one that is an archive.
NO_FEEDS = {
    "AmazonWebServicesBlogFirstEntryContent.xml",
    "PaulDixExplainsNothingFirstEntryContent.xml",
    "TechCrunchFirstEntryDescription.xml",
    "TenderLovemakingFirstEntry.xml",
    "compressed.xml",
}


def read(path: Path) -> Feed:
    return parse(path.read_bytes(), url=f"https://origin.example/{path.name}")


def files(folder: str, pattern: str = "*.*") -> list[Path]:
    return sorted(path for path in (DATA / folder).rglob(pattern) if path.is_file())


def real_feeds() -> list[Path]:
    found = files("feedjira") + files("node-feedparser") + files("fastfeedparser", "*.xml")
    return [path for path in found if path.name not in NO_FEEDS]


@pytest.mark.parametrize("path", real_feeds(), ids=lambda path: path.name)
def test_a_real_feed_gives_entries_that_can_become_items(path: Path) -> None:
    feed = read(path)
    assert feed.entries
    for entry in feed.entries:
        assert entry.title or entry.summary_text or entry.content_text
        assert entry.url or entry.guid or entry.title


def test_what_is_no_feed_among_them_is_refused() -> None:
    refused = [
        path for path in files("feedjira") + files("node-feedparser") if path.name in NO_FEEDS
    ]
    assert len(refused) == len(NO_FEEDS)
    for path in refused:
        with pytest.raises(FeedError, match="not a feed"):
            read(path)


def expected(path: Path) -> Any:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", files("fastfeedparser", "*.xml"), ids=lambda path: path.name)
def test_counts_links_titles_and_dates_are_those_another_parser_finds(path: Path) -> None:
    theirs, ours = expected(path), read(path)
    assert ours.title.split() == (theirs["feed"].get("title") or "").split()
    assert len(ours.entries) == len(theirs["entries"])
    for mine, their in zip(ours.entries, theirs["entries"], strict=True):
        assert mine.url == their["link"]
        assert mine.title.split() == unescape(their["title"]).split()
        if their.get("published"):
            assert mine.published == datetime.fromisoformat(their["published"]).astimezone(UTC)


def test_episodes_of_podcasts_are_those_another_parser_finds() -> None:
    compared = 0
    for path in files("podcastparser", "*.rss"):
        theirs = {(each["title"], each["published"]) for each in expected(path)["episodes"]}
        if not theirs:
            continue
        ours = {
            (entry.title, int(entry.published.timestamp()) if entry.published else 0)
            for entry in read(path).entries
        }
        assert theirs <= ours, path.name
        compared += len(theirs)
    assert compared > 30


def test_the_cases_that_broke_parsers_before_break_nothing() -> None:
    cases = files("feedparser-cases", "*.xml")
    outcomes = {"feed": 0, "refused": 0}
    for path in cases:
        try:
            read(path)
        except FeedError:
            outcomes["refused"] += 1
        else:
            outcomes["feed"] += 1
    assert sum(outcomes.values()) == len(cases) > 500
    assert outcomes["refused"] <= 5

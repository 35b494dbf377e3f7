from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pgqueue.pipeline.feeds import Feed, parse
from pgqueue.pipeline.fetch import fetch
from pgqueue.pipeline.items import NewItem, items_of
from pgqueue.pipeline.samples import LIVE_FEEDS, SAMPLE_FEEDS, write_samples
from pgqueue.pipeline.urls import canonical

# A night of seven hours: the clocks go forward in it.
START = datetime(2026, 3, 28, 22, tzinfo=ZoneInfo("Europe/Bratislava"))
END = datetime(2026, 3, 29, 6, tzinfo=ZoneInfo("Europe/Bratislava"))


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    return write_samples(tmp_path, window_start=START, window_end=END)


def feeds_of(paths: list[Path]) -> list[Feed]:
    return [parse(path.read_bytes(), url=path.as_uri()) for path in paths]


def items_in(paths: list[Path]) -> list[NewItem]:
    return [
        item
        for path, feed in zip(paths, feeds_of(paths), strict=True)
        for item in items_of(feed.entries, source_url=path.as_uri(), first_seen_at=END)
    ]


def test_every_sample_is_a_feed_of_its_own_format_and_publisher(written: list[Path]) -> None:
    feeds = feeds_of(written)
    assert [path.name for path in written] == [source.url for source in SAMPLE_FEEDS]
    assert [feed.title for feed in feeds] == [source.name for source in SAMPLE_FEEDS]
    assert [feed.format for feed in feeds] == ["rss20", "atom10", "rss093", "rss10", "json11"]


@pytest.mark.parametrize("length", [timedelta(hours=9), timedelta(minutes=2, microseconds=3)])
@pytest.mark.parametrize("offset", [timedelta(0), timedelta(microseconds=999_999)])
def test_every_date_lies_inside_the_window(
    tmp_path: Path, length: timedelta, offset: timedelta
) -> None:
    start = START.astimezone(UTC) + offset
    items = items_in(write_samples(tmp_path, window_start=start, window_end=start + length))
    assert 40 <= len(items) <= 60
    for item in items:
        assert item.published_at is not None
        assert start <= item.published_at < start + length, item.title


def test_the_samples_read_as_whole_articles(written: list[Path]) -> None:
    for item in items_in(written):
        assert item.url is not None
        assert ".example/" in item.url
        assert item.lang == "en", item.title
        assert item.author
        assert 3 <= item.text.count(".") <= 12, item.title
        assert "{{" not in item.url + item.title + item.text


def test_one_article_is_listed_twice_with_tracking_and_one_is_copied(written: list[Path]) -> None:
    items = items_in(written)
    twice = [item for item in items if "utm_source" in (item.url or "")]
    assert len(twice) == 1
    assert [item.dedupe_key for item in items].count(twice[0].dedupe_key) == 2
    assert len({item.dedupe_key for item in items}) == len(items) - 1
    copies = [item.text for item in items if item.title.startswith("Eleven fires")]
    assert len(copies) == 2
    assert copies[0] != copies[1]


def test_the_same_window_gives_the_same_bytes_and_touches_nothing(
    tmp_path: Path, written: list[Path]
) -> None:
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in written]
    tags = [fetch(path.as_uri(), files_under=(tmp_path,)).etag for path in written]
    same = write_samples(
        tmp_path, window_start=START.astimezone(UTC), window_end=END.astimezone(UTC)
    )
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in same] == before
    for path, tag in zip(written, tags, strict=True):
        assert fetch(path.as_uri(), etag=tag, files_under=(tmp_path,)).not_modified


def test_a_later_window_has_articles_of_its_own(tmp_path: Path, written: list[Path]) -> None:
    first = {item.canonical_url for item in items_in(written)}
    later = write_samples(tmp_path, window_start=END, window_end=END + timedelta(hours=8))
    assert first.isdisjoint(item.canonical_url for item in items_in(later))


def test_a_window_too_short_for_the_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two minutes"):
        write_samples(tmp_path, window_start=START, window_end=START + timedelta(seconds=9))
    assert list(tmp_path.iterdir()) == []


def test_the_live_feeds_are_addresses() -> None:
    for source in LIVE_FEEDS:
        assert source.name
        assert canonical(source.url) == source.url

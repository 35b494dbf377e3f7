from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.pipeline.feeds import Entry
from pgqueue.pipeline.items import MAX_TEXT, belongs_at, item_of, items_of, language_of

SEEN = datetime(2026, 3, 10, 12, tzinfo=UTC)
SOURCE = "https://news.example/feed"
ENTRY = Entry(
    guid="g-1",
    url="https://News.example/a?utm_source=feed&id=1",
    title="  Wind farm\nopens ",
    author="Ann",
    published=SEEN - timedelta(hours=2),
    summary_text="Short.",
    content_text="The wind farm off the coast has opened after a year of delays at the harbour.",
    lang="de-AT",
)


def key(entry: Entry, source_url: str = SOURCE) -> str:
    return item_of(entry, source_url=source_url, first_seen_at=SEEN).dedupe_key


def test_an_entry_becomes_the_values_of_an_item() -> None:
    item = item_of(ENTRY, source_url=SOURCE, first_seen_at=SEEN)
    assert item.url == ENTRY.url
    assert item.canonical_url == "https://news.example/a?id=1"
    assert item.title == "Wind farm opens"
    assert (item.text, item.author, item.guid) == (ENTRY.content_text, "Ann", "g-1")
    assert (item.published_at, item.first_seen_at) == (ENTRY.published, SEEN)
    assert item.belongs_at == ENTRY.published


@pytest.mark.parametrize(
    ("published", "belongs"),
    [
        (None, SEEN),
        (SEEN - timedelta(hours=1), SEEN - timedelta(hours=1)),
        (SEEN - timedelta(days=7), SEEN - timedelta(days=7)),
        (SEEN - timedelta(days=7, seconds=1), SEEN),
        (SEEN + timedelta(seconds=1), SEEN),
        (datetime(1, 1, 1, tzinfo=UTC), SEEN),
        (datetime(9999, 12, 31, tzinfo=UTC), SEEN),
    ],
)
def test_an_item_belongs_by_the_earlier_instant_that_can_be_believed(
    published: datetime | None, belongs: datetime
) -> None:
    assert belongs_at(published, SEEN) == belongs


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_item_never_belongs_to_the_future_or_to_more_than_a_week_ago(when: datetime) -> None:
    assert timedelta(0) <= SEEN - belongs_at(when, SEEN) <= timedelta(days=7)


def test_the_same_article_has_the_same_key_from_any_source() -> None:
    copy = replace(ENTRY, guid="other", title="Other", url="https://news.example/a?id=1#top")
    assert key(ENTRY) == key(copy, "https://else.example/feed")
    assert key(ENTRY) != key(replace(ENTRY, url="https://news.example/a?id=2"))


def test_without_an_address_of_its_own_the_guid_identifies_within_its_source() -> None:
    bare = replace(ENTRY, url=None)
    home = replace(ENTRY, url="https://news.example/")
    assert key(bare) == key(home) == key(replace(bare, title="Edited"))
    assert key(bare) != key(bare, "https://else.example/feed")


def test_without_guid_and_address_title_and_text_identify() -> None:
    bare = replace(ENTRY, url=None, guid=None)
    assert key(bare) == key(replace(bare, author=None), "https://else.example/feed")
    assert key(bare) != key(replace(bare, title="Another"))


def test_an_address_that_many_entries_share_identifies_none_of_them() -> None:
    entries = [replace(ENTRY, guid=f"g-{number}") for number in range(3)]
    items = items_of(entries, source_url=SOURCE, first_seen_at=SEEN)
    assert len({item.dedupe_key for item in items}) == 3


def test_an_article_listed_twice_is_one_item_and_an_empty_entry_is_none() -> None:
    empty = Entry("g-2", "https://news.example/b", "", None, None, "", "")
    again = replace(ENTRY, url="https://news.example/a?id=1")
    items = items_of([ENTRY, again, empty], source_url=SOURCE, first_seen_at=SEEN)
    assert [item.url for item in items] == [ENTRY.url]


def test_the_hash_follows_title_and_text() -> None:
    same = item_of(replace(ENTRY, author="Bo", guid="x"), source_url=SOURCE, first_seen_at=SEEN)
    other = item_of(replace(ENTRY, content_text="New."), source_url=SOURCE, first_seen_at=SEEN)
    here = item_of(ENTRY, source_url=SOURCE, first_seen_at=SEEN)
    assert here.content_hash == same.content_hash != other.content_hash


def test_an_entry_without_a_title_is_headed_by_its_text() -> None:
    post = replace(ENTRY, title="", content_text="Short post about wind.\nMore.")
    assert item_of(post, source_url=SOURCE, first_seen_at=SEEN).title == "Short post about wind."


def test_a_book_in_a_feed_is_cut() -> None:
    item = item_of(
        replace(ENTRY, content_text="w " * 99_999), source_url=SOURCE, first_seen_at=SEEN
    )
    assert len(item.text) <= MAX_TEXT


def test_an_endless_address_is_left_out() -> None:
    long = replace(ENTRY, url="https://news.example/" + "a" * 5_000)
    item = item_of(long, source_url=SOURCE, first_seen_at=SEEN)
    assert (item.url, item.canonical_url) == (None, None)
    assert item.dedupe_key.startswith("guid:")


def test_the_language_is_read_from_the_text() -> None:
    assert item_of(ENTRY, source_url=SOURCE, first_seen_at=SEEN).lang == "en"
    german = "Der Windpark vor der Küste wurde nach einem Jahr Verzögerung am Montag eröffnet."
    assert language_of(german) == "de"
    assert language_of("Wind 2026") is None


@pytest.mark.parametrize(
    ("claim", "lang"),
    [("de-AT", "de"), ("EN_us", "en"), ("", None), ("english", None), ("1", None)],
)
def test_a_text_too_short_to_tell_has_the_language_its_feed_claims(
    claim: str, lang: str | None
) -> None:
    short = replace(ENTRY, title="Wind", content_text="", summary_text="", lang=claim)
    assert item_of(short, source_url=SOURCE, first_seen_at=SEEN).lang == lang


@given(
    st.builds(
        Entry,
        guid=st.none() | st.text(),
        url=st.none() | st.text() | st.text().map("https://news.example/{}".format),
        title=st.text(),
        author=st.none() | st.text(),
        published=st.none() | st.datetimes(timezones=st.just(UTC)),
        summary_text=st.text(),
        content_text=st.text(),
        lang=st.none() | st.text(),
    )
)
def test_any_entry_gives_an_item_that_postgres_takes_and_always_the_same(entry: Entry) -> None:
    item = item_of(entry, source_url=SOURCE, first_seen_at=SEEN)
    assert item == item_of(entry, source_url=SOURCE, first_seen_at=SEEN)
    assert item.title
    for text in (item.url, item.canonical_url, item.guid, item.title, item.author, item.text):
        assert "\0" not in (text or "")
        (text or "").encode()
    assert len(item.dedupe_key) < 50

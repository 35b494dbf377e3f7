"""What a feed tells about an article, as the values of one row of `items`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgqueue.pipeline.feeds import Entry
from pgqueue.pipeline.markup import one_line, storable
from pgqueue.pipeline.urls import canonical, is_front_page

# Longer than any article worth embedding; a book in a feed stays out of the table.
MAX_TEXT = 100_000
MAX_TITLE = 500
_MAX_NAME = 200
_MAX_URL = 2_000
# Identification needs letters to count: below this it guesses.
_MIN_LANG_TEXT = 40
_LANG_SAMPLE = 2_000
OLDEST = timedelta(days=7)


@dataclass(frozen=True)
class NewItem:
    """One item, ready to be inserted; every text is such as Postgres takes.

    `published_at` is what the feed claims; `belongs_at` is the instant that puts the item into a
    window. `content_hash` changes when title or text do. `dedupe_key` is the same whenever and
    wherever the same article is met within a topic. Instants are in UTC.
    """

    url: str | None
    canonical_url: str | None
    guid: str | None
    title: str
    author: str | None
    published_at: datetime | None
    first_seen_at: datetime
    belongs_at: datetime
    text: str
    lang: str | None
    content_hash: str
    dedupe_key: str


def items_of(
    entries: Iterable[Entry], *, source_url: str, first_seen_at: datetime
) -> list[NewItem]:
    """The items of one fetch of one source, in the feed's order; entries without content left out.

    An address that several entries with guids of their own share names no article: there the guid
    identifies. Two entries that are the same article give one item, the first.
    """
    told = [entry for entry in entries if entry.title or entry.summary_text or entry.content_text]
    shared = _shared_addresses(told)
    items: dict[str, NewItem] = {}
    for entry in told:
        item = item_of(
            entry, source_url=source_url, first_seen_at=first_seen_at, shared_addresses=shared
        )
        items.setdefault(item.dedupe_key, item)
    return list(items.values())


def item_of(
    entry: Entry,
    *,
    source_url: str,
    first_seen_at: datetime,
    shared_addresses: frozenset[str] = frozenset(),
) -> NewItem:
    """One entry as an item; `first_seen_at` must know its zone.

    `source_url` keeps the guids of different sources apart; `shared_addresses` are canonical
    addresses that identify no article.
    """
    text = _cut(storable(entry.content_text or entry.summary_text).strip(), MAX_TEXT)
    title = _cut(one_line(entry.title), MAX_TITLE) or _headline(text)
    url = entry.url if entry.url and len(entry.url) <= _MAX_URL else None
    canonical_url = canonical(url) if url else None
    guid = _cut(storable(entry.guid or "").strip(), _MAX_URL) or None
    content_hash = _digest(title, text)
    return NewItem(
        url=storable(url) if url else None,
        canonical_url=canonical_url,
        guid=guid,
        title=title,
        author=_cut(one_line(entry.author or ""), _MAX_NAME) or None,
        published_at=entry.published,
        first_seen_at=first_seen_at,
        belongs_at=belongs_at(entry.published, first_seen_at),
        text=text,
        # Feeds often claim what their template came with: the claim serves short texts only.
        lang=language_of(f"{title}\n{text}") or _claimed(entry.lang),
        content_hash=content_hash,
        dedupe_key=_dedupe_key(canonical_url, shared_addresses, source_url, guid, content_hash),
    )


def belongs_at(published_at: datetime | None, first_seen_at: datetime) -> datetime:
    """The instant that puts an item into a window: the earlier of the two.

    A published_at in the future, or more than 7 days before the item was first seen, is not
    believed: then it is first_seen_at.
    """
    if published_at is None or published_at > first_seen_at:
        return first_seen_at
    return first_seen_at if first_seen_at - published_at > OLDEST else published_at


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of the text's language, or None when it is too short to tell."""
    sample = text[:_LANG_SAMPLE]
    if sum(map(str.isalpha, sample)) < _MIN_LANG_TEXT:
        return None
    # Here and not above: its model takes a moment to load, and a feed may never need it.
    import py3langid  # type: ignore[import-untyped] # noqa: PLC0415 - lazy; ships no types

    return str(py3langid.classify(sample)[0])


def _dedupe_key(
    canonical_url: str | None,
    shared_addresses: frozenset[str],
    source_url: str,
    guid: str | None,
    content_hash: str,
) -> str:
    """Hashed, since an index of Postgres takes no value over about 2,700 bytes."""
    names_article = canonical_url and not is_front_page(canonical_url)
    if canonical_url and names_article and canonical_url not in shared_addresses:
        return f"url:{_digest(canonical_url)}"
    return f"guid:{_digest(source_url, guid)}" if guid else f"text:{content_hash}"


def _shared_addresses(entries: list[Entry]) -> frozenset[str]:
    pairs = {(canonical(entry.url), entry.guid) for entry in entries if entry.url and entry.guid}
    counted = Counter(address for address, _ in pairs if address)
    return frozenset(address for address, count in counted.items() if count > 1)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _headline(text: str) -> str:
    """For entries without a title, as short posts have none: the beginning of their text."""
    return _cut(one_line(text.partition("\n")[0]), 100) or "(untitled)"


def _claimed(lang: str | None) -> str | None:
    """The language of a tag such as en-US (BCP 47): its first part."""
    first = (lang or "").replace("_", "-").partition("-")[0].strip().lower()
    return first if first.isascii() and first.isalpha() and len(first) in (2, 3) else None

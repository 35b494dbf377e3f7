"""Feeds of every kind in use, from bytes to entries."""

from __future__ import annotations

import calendar
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import struct_time
from typing import Any
from urllib.parse import urljoin
from xml.sax import SAXException

import fastfeedparser  # type: ignore[import-untyped] # ships no types
import feedparser  # type: ignore[import-untyped] # ships no types

from pgqueue.errors import PgQueueError
from pgqueue.pipeline.markup import one_line, plain_text, storable

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_JSON_VERSION = "jsonfeed.org/version/"
_ROOTS = (b"<rss", b"<feed", b"<rdf", b"<atom:feed", b"<channel")
# The densest real feed we test with has a tag per 30 bytes: 167,000 in 5 MB. At 300,000 the
# slowest hostile body we know holds a core for 15 seconds, and no time-out can stop a parser.
_MAX_TAGS = 200_000
_MAX_REASON = 200


@dataclass(frozen=True)
class Entry:
    """One article of a feed; every text is plain, and such as Postgres takes.

    `url` is absolute and http(s), or None. `published` is in UTC; where a feed only tells when an
    entry was updated, that. `summary_text` and `content_text` are "" when absent, `lang` is what
    the feed claims.
    """

    guid: str | None
    url: str | None
    title: str
    author: str | None
    published: datetime | None
    summary_text: str
    content_text: str
    lang: str | None = None


@dataclass(frozen=True)
class Feed:
    """A feed that was understood; `format` as feedparser names it: rss20, atom10, rss10, json11."""

    title: str
    format: str
    entries: tuple[Entry, ...]


class FeedError(PgQueueError):
    """The bytes are no feed; `reason` is one short line fit to be stored and shown."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = " ".join(storable(reason).split())[:_MAX_REASON]
        super().__init__(f"{url}: {self.reason}")


def parse(body: bytes, *, url: str, content_type: str | None = None) -> Feed:
    """The feed in `body`, which was fetched from `url`; entries in the feed's own order.

    RSS 0.9x to 2.0, RDF, Atom and JSON Feed 1.x, in any encoding the standard library knows.
    Raises FeedError, and nothing else, whatever the bytes.
    """
    if not body.strip():
        raise FeedError(url, "empty answer")
    try:
        if _looks_like_json(body):
            return _json_feed(body, url)
        return _xml_feed(body, url, content_type)
    except FeedError:
        raise
    except Exception as error:  # strangers' bytes find every bug of a parser
        raise FeedError(url, f"the parser failed: {type(error).__name__}: {error}") from error


def _xml_feed(body: bytes, url: str, content_type: str | None) -> Feed:
    # Asked first: the loose parser would take long over a large page, to find nothing.
    if _is_html_page(body):
        raise FeedError(url, "not a feed: an HTML page")
    if body.count(b"<") > _MAX_TAGS:
        raise FeedError(url, f"too many tags: more than {_MAX_TAGS}")
    # A stream and never the bytes themselves: feedparser opens a string that looks like an address.
    base = url if url.startswith(("http:", "https:")) else ""
    headers = {"content-location": base, "content-type": content_type or "application/xml"}
    found = feedparser.parse(io.BytesIO(body), response_headers=headers, sanitize_html=False)
    trouble = found.get("bozo_exception")
    is_broken = isinstance(trouble, SAXException)
    if found.entries or (found.version and not is_broken):
        return _from_feedparser(found, base)
    second = _second_try(body, base)
    if second is not None:
        return second
    raise FeedError(url, f"not a feed: {trouble}" if is_broken else "not a feed")


def _from_feedparser(found: Any, base: str) -> Feed:
    feed = found.feed
    site = _joined(base, _text(feed.get("link")))
    entries = tuple(_parsed_entry(entry, site or base, feed) for entry in found.entries)
    return Feed(one_line(_marked(feed, "title")), found.version or "unknown", entries)


def _parsed_entry(entry: Any, base: str, feed: Any) -> Entry:
    contents = [_readable(part) for part in entry.get("content", ())]
    title_detail = dict.get(entry, "title_detail") or {}
    return Entry(
        guid=storable(_text(entry.get("id"))) or None,
        url=_page(base, _text(entry.get("link"))),
        title=one_line(_marked(entry, "title")),
        author=one_line(_text(entry.get("author"))) or None,
        # dict.get: the library's own warns when it answers `updated` with `published`.
        published=_first_instant(
            dict.get(entry, f"{name}_parsed") for name in ("published", "created", "updated")
        ),
        summary_text=_readable(dict.get(entry, "summary_detail") or {}),
        content_text=max(contents, key=len, default=""),
        lang=_language(title_detail, feed),
    )


def _marked(holder: Any, name: str) -> str:
    detail = dict.get(holder, f"{name}_detail") or {}
    return _readable(detail) or _text(dict.get(holder, name))


def _readable(detail: Mapping[str, Any]) -> str:
    value = _text(detail.get("value"))
    return plain_text(value) if detail.get("type") in _HTML_TYPES else storable(value).strip()


def _second_try(body: bytes, base: str) -> Feed | None:
    """What fastfeedparser makes of a feed that feedparser finds nothing in; None when nothing."""
    try:
        found = fastfeedparser.parse(body, include_tags=False, include_media=False)
    except Exception:  # noqa: BLE001 - the first parser's trouble is the one that is told
        return None
    entries = tuple(_fast_entry(entry, base) for entry in found.entries)
    if not entries:
        return None
    return Feed(one_line(_text(found.feed.get("title"))), "unknown", entries)


def _fast_entry(entry: Mapping[str, Any], base: str) -> Entry:
    contents = [plain_text(_text(part.get("value"))) for part in entry.get("content") or ()]
    return Entry(
        guid=storable(_text(entry.get("id"))) or None,
        url=_page(base, _text(entry.get("link"))),
        title=one_line(plain_text(_text(entry.get("title")))),
        author=one_line(_text(entry.get("author"))) or None,
        published=_iso(entry.get("published")) or _iso(entry.get("updated")),
        summary_text=plain_text(_text(entry.get("description"))),
        content_text=max(contents, key=len, default=""),
    )


def _json_feed(body: bytes, url: str) -> Feed:
    """JSON Feed 1.0 and 1.1 (https://jsonfeed.org/version/1.1)."""
    try:
        found = json.loads(body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise FeedError(url, f"not a feed: broken JSON: {error}") from error
    version = _text(found.get("version")) if isinstance(found, dict) else ""
    items = found.get("items") if isinstance(found, dict) else None
    if _JSON_VERSION not in version or not isinstance(items, list):
        raise FeedError(url, "not a feed: JSON, but no JSON Feed")
    base = _page(url, _text(found.get("home_page_url"))) or url
    entries = tuple(_json_entry(item, base, found) for item in items if isinstance(item, dict))
    number = version.rpartition("/")[2].replace(".", "")
    return Feed(one_line(_text(found.get("title"))), storable(f"json{number}")[:20], entries)


def _json_entry(item: dict[str, Any], base: str, feed: dict[str, Any]) -> Entry:
    text = storable(_text(item.get("content_text"))).strip()
    return Entry(
        guid=storable(_text(item.get("id"))) or None,
        url=_page(base, _text(item.get("url")) or _text(item.get("external_url"))),
        title=one_line(_text(item.get("title"))),
        author=_json_author(item) or _json_author(feed),
        published=_iso(item.get("date_published")) or _iso(item.get("date_modified")),
        summary_text=storable(_text(item.get("summary"))).strip(),
        content_text=text or plain_text(_text(item.get("content_html"))),
        lang=_language(item, feed),
    )


def _json_author(holder: dict[str, Any]) -> str | None:
    authors = holder.get("authors")
    listed = authors if isinstance(authors, list) else [holder.get("author")]
    names = [one_line(_text(each.get("name"))) for each in listed if isinstance(each, dict)]
    return ", ".join(name for name in names if name) or None


def _text(value: object) -> str:
    """The value if it is text, a number as its digits, else nothing: feeds promise no types."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else ""


def _language(*said: Mapping[str, Any]) -> str | None:
    """What the first of them says that says anything."""
    return next((text for one in said if (text := storable(_text(one.get("language"))))), None)


def _page(base: str, link: str) -> str | None:
    absolute = _joined(base, storable(link).strip())
    return absolute if absolute.lower().startswith(("http://", "https://")) else None


def _joined(base: str, link: str) -> str:
    """The link made absolute, or "" where there is none or it cannot be read."""
    if not link:
        return ""
    try:
        return urljoin(base, link)
    except ValueError:
        return ""


def _first_instant(times: Iterable[struct_time | None]) -> datetime | None:
    return next((instant for instant in map(_utc, times) if instant), None)


def _utc(parsed: struct_time | None) -> datetime | None:
    if parsed is None:
        return None
    try:
        return datetime.fromtimestamp(calendar.timegm(parsed), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _iso(value: object) -> datetime | None:
    try:
        instant = datetime.fromisoformat(_text(value))
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _looks_like_json(body: bytes) -> bool:
    return body.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1] in (b"{", b"[")


def _is_html_page(body: bytes) -> bool:
    head = body[:2_000].lower()
    is_page = b"<html" in head or b"<!doctype html" in head
    return is_page and not any(root in head for root in _ROOTS)

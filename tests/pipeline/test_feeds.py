from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.pipeline.feeds import Entry, Feed, FeedError, parse

URL = "https://news.example/feeds/main.xml"
RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/">
<channel><title>Wind &amp; Sun</title><link>https://news.example/</link><language>en</language>
<item><title>A &lt;b&gt;bold&lt;/b&gt; caf&#233; &amp;amp; more</title><link>/a?x=1&amp;y=2</link>
<guid isPermaLink="false">g-1</guid><author>Ann Noone</author>
<pubDate>Mon, 02 Mar 2026 10:30:00 +0200</pubDate>
<description>Short &amp;amp; plain.</description>
<content:encoded><![CDATA[<style>p{}</style><p>First&nbsp;part.</p><p>Second<br>part</p>
<script>alert(1)</script>]]></content:encoded></item>
</channel></rss>"""


def test_an_rss_item_is_read_whole_as_plain_text() -> None:
    assert parse(RSS.encode(), url=URL, content_type="application/rss+xml") == Feed(
        title="Wind & Sun",
        format="rss20",
        entries=(
            Entry(
                guid="g-1",
                url="https://news.example/a?x=1&y=2",
                title="A bold café & more",
                author="Ann Noone",
                published=datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
                summary_text="Short & plain.",
                content_text="First part.\nSecond\npart",
                lang="en",
            ),
        ),
    )


def test_an_atom_entry_takes_its_links_from_the_nearest_base() -> None:
    atom = """<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://base.example/x/">
    <title type="html">T</title><entry xml:base="y/"><id>i</id><link href="z"/>
    <title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">a <i>b</i></div></title>
    <updated>2026-03-02T10:30:00.25Z</updated></entry></feed>"""
    (entry,) = parse(atom.encode(), url=URL).entries
    assert (entry.url, entry.title) == ("https://base.example/x/y/z", "a b")
    assert entry.published == datetime(2026, 3, 2, 10, 30, tzinfo=UTC)


def test_rdf_and_old_rss_are_read() -> None:
    rdf = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">
    <channel rdf:about="https://a.example/"><title>R</title></channel>
    <item rdf:about="https://a.example/1"><title>one</title><link>https://a.example/1</link>
    <dc:creator>Bo</dc:creator><dc:date>2026-03-02T10:30:00Z</dc:date></item></rdf:RDF>"""
    feed = parse(rdf.encode(), url=URL)
    assert (feed.format, feed.entries[0].author) == ("rss10", "Bo")
    assert feed.entries[0].published == datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
    old = b'<rss version="0.91"><channel><item><title>x</title></item></channel></rss>'
    assert parse(old, url=URL).entries[0].title == "x"


def test_a_video_channel_gives_title_link_and_description() -> None:
    atom = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:media="http://search.yahoo.com/mrss/"
    xmlns:yt="http://www.youtube.com/xml/schemas/2015"><title>Channel</title><entry>
    <id>yt:video:abc</id><title>A talk</title><link rel="alternate" href="https://v.example/?v=abc"/>
    <author><name>Kit</name></author><published>2026-03-02T10:30:00+00:00</published>
    <media:group><media:description>What it says</media:description></media:group></entry></feed>"""
    (entry,) = parse(atom.encode(), url=URL).entries
    assert (entry.guid, entry.title, entry.author) == ("yt:video:abc", "A talk", "Kit")
    assert (entry.url, entry.summary_text) == ("https://v.example/?v=abc", "What it says")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "iso-8859-1", "windows-1252"])
def test_the_declared_or_marked_encoding_is_obeyed(encoding: str) -> None:
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    body = RSS.replace("utf-8", name).replace("Ann Noone", "Zoë Müller").encode(encoding)
    assert parse(body, url=URL).entries[0].author == "Zoë Müller"


def json_feed(**parts: object) -> bytes:
    feed = {"version": "https://jsonfeed.org/version/1.1", "title": "J", "items": []} | parts
    return json.dumps(feed).encode()


def test_a_json_feed_is_read() -> None:
    item = {
        "id": 7,
        "url": "/a",
        "title": "One &amp; two",
        "content_html": "<p>Hello <b>there</b></p>",
        "summary": "Hi",
        "date_published": "2026-03-02T10:30:00+02:00",
        "authors": [{"name": "Ann"}, {"name": "Bo"}, {}],
    }
    feed = parse(json_feed(items=[item], language="de"), url=URL, content_type="application/json")
    assert (feed.title, feed.format) == ("J", "json11")
    assert feed.entries == (
        Entry(
            guid="7",
            url="https://news.example/a",
            title="One & two",
            author="Ann, Bo",
            published=datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
            summary_text="Hi",
            content_text="Hello there",
            lang="de",
        ),
    )


def test_a_json_feed_of_the_first_version_has_one_author_and_maybe_a_byte_order_mark() -> None:
    item = {"id": "a", "external_url": "https://o.example/", "content_text": "x < y"}
    body = json_feed(
        version="https://jsonfeed.org/version/1", author={"name": "Ann"}, items=[item, 3, None]
    )
    feed = parse(b"\xef\xbb\xbf" + body, url=URL)
    assert feed.format == "json1"
    (entry,) = feed.entries
    assert (entry.author, entry.url, entry.content_text) == ("Ann", "https://o.example/", "x < y")


def test_a_feed_without_entries_is_a_feed() -> None:
    empty = b'<rss version="2.0"><channel><title>Quiet</title></channel></rss>'
    assert parse(empty, url=URL) == Feed("Quiet", "rss20", ())


def test_entries_before_the_cut_of_a_truncated_feed_are_kept() -> None:
    two = RSS.replace("</channel></rss>", "<item><title>cut off he")
    assert parse(two.encode(), url=URL).entries[0].title == "A bold café & more"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty answer"),
        (b" \n ", "empty answer"),
        (b"<!DOCTYPE html><title>x</title><p>hello", "not a feed: an HTML page"),
        (b'<?xml version="1.0"?><html xmlns="x"><p/></html>', "not a feed: an HTML page"),
        (b"hello", "not a feed: "),
        (b'<rss version="2.0"><channel><ti', "not a feed: "),
        (b"<opml><body/></opml>", "not a feed"),
        (b'{"items": []}', "not a feed: JSON, but no JSON Feed"),
        (b"[]", "not a feed: JSON, but no JSON Feed"),
        (b'{"version": "https://jsonfeed.org/version/1", "items": 3}', "not a feed: JSON"),
        (b'{"version": ', "not a feed: broken JSON: "),
        (b"[" * 100_000, "not a feed: broken JSON: "),
        (gzip.compress(RSS.encode()), "not a feed: "),
        (RSS.encode() + b"<a>" * 1_600_000, "too many tags: more than 200000"),
    ],
)
def test_what_is_no_feed_is_told_in_one_short_line(body: bytes, reason: str) -> None:
    with pytest.raises(FeedError) as caught:
        parse(body, url=URL)
    assert caught.value.reason.startswith(reason)
    assert len(caught.value.reason) <= 200
    assert "\n" not in caught.value.reason
    assert str(caught.value) == f"{URL}: {caught.value.reason}"


def test_links_that_are_no_web_pages_are_left_out() -> None:
    for link in ("javascript:alert(1)", "file:///etc/passwd", "mailto:a@b.example", "http://[x"):
        body = RSS.replace("/a?x=1&amp;y=2", link).encode()
        assert parse(body, url=URL).entries[0].url is None, link


def test_a_feed_read_from_a_file_resolves_links_against_its_site() -> None:
    body = RSS.encode()
    assert parse(body, url="file:///srv/a.xml").entries[0].url == "https://news.example/a?x=1&y=2"
    homeless = RSS.replace("<link>https://news.example/</link>", "").encode()
    assert parse(homeless, url="file:///srv/a.xml").entries[0].url is None


def test_a_body_that_is_an_address_or_a_path_is_never_opened() -> None:
    for body in (b"http://127.0.0.1:1/", b"/etc/passwd", b"file:///etc/passwd"):
        with pytest.raises(FeedError, match="not a feed"):
            parse(body, url=URL)


def test_entity_bombs_neither_grow_nor_take_long() -> None:
    levels = b"".join(b'<!ENTITY %c "%s">' % (98 + i, (b"&%c;" % (97 + i)) * 10) for i in range(12))
    laughs = b'<!DOCTYPE x [<!ENTITY a "lol">' + levels + b"]>"
    outside = b'<!DOCTYPE x [<!ENTITY m SYSTEM "file:///etc/passwd">]>'
    started = time.monotonic()
    for bomb in (laughs, outside):
        body = bomb + b'<rss version="2.0"><channel><item><title>&m;</title></item></channel></rss>'
        feed = parse(body, url=URL)
        assert len(feed.entries[0].title) < 100
        assert "root" not in feed.entries[0].title
    assert time.monotonic() - started < 10


def test_deep_nesting_breaks_nothing() -> None:
    deep = RSS.replace("Short", "&lt;div>" * 20_000 + "Short").encode()
    assert "plain" in parse(deep, url=URL).entries[0].summary_text
    parse(RSS.replace("Short", "<div>" * 5_000 + "Short").encode(), url=URL)


def damaged(body: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(body))
    return st.builds(
        lambda at, until, junk: body[: min(at, until)] + junk + body[max(at, until) :],
        places,
        places,
        st.binary(max_size=30)
        | st.sampled_from([b"&#0;", b"&#xD800;", b"\xff\xfe", b"]]>", b"<!"]),
    )


JSON = json_feed(items=[{"id": "\ud800", "title": "\x00", "date_published": "9999-12-31"}])


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=200) | damaged(RSS.encode()) | damaged(RSS.encode("utf-16")) | damaged(JSON)
)
def test_any_bytes_give_storable_entries_or_a_feed_error(body: bytes) -> None:
    try:
        feed = parse(body, url=URL)
    except FeedError as error:
        texts = [error.reason]
    else:
        texts = [feed.title, feed.format]
        for entry in feed.entries:
            texts += [entry.title, entry.summary_text, entry.content_text]
            texts += [entry.url or "", entry.guid or "", entry.author or "", entry.lang or ""]
    for text in texts:
        assert "\0" not in text
        text.encode()


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["items", "title", "home_page_url", "authors", "author", "language"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["id", "url", "title", "content_html", "authors", "name"]),
                    inner,
                )
            ),
        ),
    )
)
def test_a_json_feed_with_wrong_types_is_read_or_refused(parts: dict[str, object]) -> None:
    try:
        parse(json_feed(**parts), url=URL)
    except FeedError as error:
        assert error.reason.startswith("not a feed: JSON")  # noqa: PT017 - either way is right


def test_a_language_is_storable_too() -> None:
    items = [{"id": "1", "language": "\x00sk"}, {"id": "2"}]
    feed = parse(json_feed(language="\x00en", items=items), url=URL)
    assert [entry.lang and entry.lang.strip() for entry in feed.entries] == ["sk", "en"]

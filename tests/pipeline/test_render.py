"""Promises of rendering: a reader sees everything, and a feed cannot harm the reader."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgqueue.pipeline.digest import DigestBody, DigestItem, DigestStory, Edition, digest
from pgqueue.pipeline.embed import choose
from pgqueue.pipeline.render import cells, render_html, render_text, safe, safe_url

START = datetime(2026, 3, 1, 6, tzinfo=UTC)
EMBEDDER = choose("hash-512")
TEXT = "The central bank raised its main interest rate by half a point on Monday."


def made(count: int = 2, **more: str) -> DigestBody:
    fields = {
        "title": "Bank raises rates", "url": "https://a.example/1", "publisher": "Daily",
        "text": TEXT,
    } | more  # fmt: skip
    vector = EMBEDDER.embed([fields["text"]])[0]
    items = [
        DigestItem(
            id=n, published_at=START + timedelta(hours=n % 8), vector=vector,
            duplicate_of=1 if n == 2 else None, **fields,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip
    centroid = np.asarray(vector, np.float32)
    edition = Edition("Economy", START, START + timedelta(hours=8), sources=4, sources_failing=1)
    stories = [DigestStory(1, centroid, "developing", items)] if items else []
    return digest(edition, stories, EMBEDDER)


def test_text_shows_title_points_numbered_sources_and_the_score() -> None:
    text = render_text(made())
    assert text.startswith("Economy: 01 Mar 2026 06:00 to 14:00 UTC\n")
    assert "1 story from 1 new item (1 of 4 sources failing)" in text
    assert "1. Bank raises rates\n" in text
    assert "\n     Monday. [1]\n" in text
    assert (
        "[1] Daily, 01 Mar 07:00 (+1 copy): Bank raises rates\n       https://a.example/1" in text
    )
    assert re.search(r"developing, score \d\.\d\d \(publishers \d\.\d\d, relevance", text)


def test_times_are_shown_in_the_readers_zone() -> None:
    zone = ZoneInfo("Europe/Bratislava")
    assert "07:00 to 15:00 CET" in render_text(made(), zone=zone)
    assert "07:00 to 15:00 CET" in render_html(made(), zone=zone)


def test_an_empty_digest_says_why() -> None:
    body = made(0)
    assert "Nothing came in" in render_text(body)
    assert "Nothing came in" in render_html(body)
    assert "<ol>" not in render_html(body)


def test_many_sources_are_summed_up() -> None:
    assert "and 3 more sources" in render_text(made(9))


@pytest.mark.parametrize("width", [30, 44, 80, 120])
@pytest.mark.parametrize("word", ["word ", "今日は", "überlang", "e\u0301"])
def test_no_line_is_wider_than_the_terminal(width: int, word: str) -> None:
    body = made(title=word * 60, text=f"{TEXT} {'wort ' * 40}.", publisher=word * 10)
    lines = render_text(body, width=width).splitlines()
    assert max(cells(line) for line in lines if "https://" not in line) <= width


@pytest.mark.parametrize(
    ("evil", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x9b31mred", "red"),
        ("\x9d0;owned\x9ctitle", "title"),
        ("a\x1bcb", "ab"),
        ("a\r\nb\x08\x00\x7f", "a b"),
        ("abc\u202egnp.exe\u2066", "abcgnp.exe"),
        ("half \ud800", "half ?"),
        ("plain – ünïcode 今日 🙂", "plain – ünïcode 今日 🙂"),  # noqa: RUF001 - a real dash
    ],
)
def test_escape_sequences_and_controls_are_taken_out(evil: str, expected: str) -> None:
    assert safe(evil) == expected


NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from("\x1b[]0;m\x07\x9b\x9d\\P<>&\"'\u202e\u2028\x00\n j"), st.characters()
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(NASTY, NASTY, NASTY)
def test_no_feed_can_send_a_control_character_or_a_tag_to_the_reader(
    title: str, publisher: str, url: str
) -> None:
    body = made(1, title=title, publisher=publisher, url=f"https://x.example/{url}")
    text, page = render_text(body), render_html(body)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    text.encode()
    seen = Tags()
    seen.feed(page)
    assert seen.tags <= {"article", "h1", "h2", "p", "ol", "ul", "li", "a", "small"}
    assert seen.attributes <= {"class", "href", "rel"}


class Tags(HTMLParser):
    """Which tags and attributes a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def test_html_is_escaped() -> None:
    page = render_html(made(title="<script>alert('x')</script> & more"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; more" in page


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//host/path", "", "https://",
        "https://a.example/\x1b[31m", "https://a.example/ b", "java\nscript:alert(1)", "http://[::1",
    ],
)  # fmt: skip
def test_only_http_addresses_become_links(url: str) -> None:
    assert safe_url(url) is None
    assert "href" not in render_html(made(1, url=url))
    assert "http" not in render_text(made(1, url=url))


def test_links_are_kept_whole() -> None:
    url = "https://a.example/" + "x" * 200 + "?a=1&b=2"
    assert f"       {url}" in render_text(made(1, url=url)).splitlines()
    assert url.replace("&", "&amp;") in render_html(made(1, url=url))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.pipeline.urls import canonical, is_front_page, without_password

SAME = [
    ("HTTP://News.Example:80/a", "http://news.example/a"),
    ("https://news.example:443/a#top", "https://news.example/a"),
    ("https://news.example:8443/a", "https://news.example:8443/a"),
    ("https://news.example", "https://news.example/"),
    ("https://news.example./a", "https://news.example/a"),
    (
        "https://news.example/a?utm_source=x&id=7&UTM_Medium=y&fbclid=z",
        "https://news.example/a?id=7",
    ),
    ("https://news.example/a?utm_source=x", "https://news.example/a"),
    ("https://news.example/a?b=2&a=1", "https://news.example/a?a=1&b=2"),
    ("https://news.example/a?a=2&a=1", "https://news.example/a?a=2&a=1"),
    ("https://news.example/a?empty=&flag", "https://news.example/a?empty=&flag"),
    ("https://user:secret@news.example/a", "https://news.example/a"),
    ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
    ("https://news.example/x/../a", "https://news.example/a"),
    (" https://news.example/\n a", "https://news.example/a"),
    ("http://[2001:DB8::1]:80/a", "http://[2001:db8::1]/a"),
    ("file:///srv/feeds/a%20b.xml", "file:///srv/feeds/a%20b.xml"),
    ("FILE://localhost/srv/a.xml#x", "file:///srv/a.xml"),
]


@pytest.mark.parametrize(("spelling", "expected"), SAME)
def test_spellings_of_one_page_become_one_address(spelling: str, expected: str) -> None:
    assert canonical(spelling) == expected


@pytest.mark.parametrize(
    "url",
    ["", "/a", "//news.example/a", "mailto:x@news.example", "urn:uuid:1", "http:///a", "http://",
     "http://[::1/a", "http://news.example:port/", "javascript:alert(1)", "http://\x00/", "file:a"],
)  # fmt: skip
def test_what_is_no_page_has_no_canonical_address(url: str) -> None:
    assert canonical(url) is None


@pytest.mark.parametrize("query", ["id=1", "source=a", "ref=1", "eid=9", "gallery=3", "session=2"])
def test_parameters_that_may_choose_the_article_stay(query: str) -> None:
    assert canonical(f"https://news.example/a?{query}") == f"https://news.example/a?{query}"


URLISH = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "HTTPS", "file"]),
    st.text(max_size=15),
    st.sampled_from(["", "/", "/a?", "/?utm_id=1&", "/%7e?q=%zz#"]),
    st.text(max_size=30),
)


@given(st.one_of(st.text(), URLISH))
def test_canonical_is_idempotent_and_never_raises(url: str) -> None:
    once = canonical(url)
    assert once is None or canonical(once) == once


def test_a_password_never_reaches_a_log() -> None:
    assert without_password("https://u:pw@news.example:8443/a?b") == "https://news.example:8443/a?b"
    assert without_password("https://news.example/@a") == "https://news.example/@a"
    assert "pw" not in without_password("https://u:pw@[news.example/a")


def test_a_front_page_is_told_from_an_article() -> None:
    assert is_front_page("https://news.example/")
    assert not is_front_page("https://news.example/?p=3")
    assert not is_front_page("https://news.example/a")

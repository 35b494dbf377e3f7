from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.pipeline.markup import one_line, plain_text, storable

PAGES = [
    ("plain &amp; simple", "plain & simple"),
    ("<p>one</p><p>two</p>", "one\ntwo"),
    ("a<br>b<br/>c", "a\nb\nc"),
    ("<b>bo</b>ld and <i>slanted</i>", "bold and slanted"),
    ("<ul><li>x</li><li>y</li></ul>z", "x\ny\nz"),
    ("<p>seen</p><script>var x = '<p>';</script><style>p{}</style><!-- no -->", "seen"),
    ("caf&eacute;&nbsp;au&#160;lait <i>x</i>", "café au lait x"),
    ("5 < 6 <b>and</b> 7 > 6", "5 < 6 and 7 > 6"),
    ("<p>open <div>never closed", "open\nnever closed"),
    ("<?xml version='1.0' encoding='utf-16'?><p>ü</p>", "ü"),
    ("<p>before\0after</p>", "beforeafter"),
    ("", ""),
    ("<>", "<>"),
    ("<div>" * 300 + "deep down" + "</div>" * 300, "deep down"),
]


@pytest.mark.parametrize(("html", "text"), PAGES)
def test_html_becomes_the_text_a_reader_sees(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text())
def test_any_text_becomes_storable_and_stays_so(text: str) -> None:
    for made in (storable(text), plain_text(text), plain_text("<p>" + text), one_line(text)):
        made.encode()
        assert "\0" not in made
        assert storable(made) == made


def test_a_pair_of_surrogates_is_the_letter_it_stands_for() -> None:
    assert storable("\ud83c\udf0a \ud83c") == "🌊 \N{REPLACEMENT CHARACTER}"


def test_a_title_is_one_line() -> None:
    assert one_line(" a\n\tb &amp; c\x1b[31m ") == "a b & c[31m"

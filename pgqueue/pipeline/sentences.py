"""Plain text from feeds: whitespace, sentences, words, headlines."""

from __future__ import annotations

import html
import re

import sentencex  # type: ignore[import-untyped] # ships no type information

from pgqueue.pipeline.embed import UNSPACED

_SPACE = re.compile(r"\s+")
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['\u2019\-.,][^\W_{UNSPACED}]+)*")
_UNSPACED = re.compile(f"[{UNSPACED}]")
# Two characters make a word of Chinese, Japanese or Thai, on average and near enough for a limit.
_CHARACTERS_PER_WORD = 2

_PREFIX = re.compile(
    r"^(?:(?:BREAKING|UPDATE|EXCLUSIVE|WATCH|VIDEO)(?: NEWS)?(?: \d+)?\s*[:\-\u2013\u2014|]\s*)+"
)
_SUFFIX = re.compile(r"\s+[|\-\u2013\u2014·»]\s+(?P<name>[^|\-\u2013\u2014·»]+)$")


def normal(text: str) -> str:
    """Return the text with every run of whitespace as one space."""
    return _SPACE.sub(" ", text).strip()


def split(text: str, lang: str = "en") -> list[str]:
    """Return the sentences of `text` in order, verbatim but for whitespace.

    `lang` is an ISO 639 code; the splitter falls back by itself for one that it does not know.
    """
    # The splitter is Rust and takes no lone surrogates; a line break inside a paragraph is a space.
    clean = text.encode("utf-8", "replace").decode()
    blocks = (normal(block) for block in re.split(r"\n\s*\n", clean))
    found = (normal(part) for block in blocks if block for part in sentencex.segment(lang, block))
    return [sentence for sentence in found if sentence]


def word_count(text: str) -> int:
    """Return the number of words; a script without spaces counts two characters as one."""
    words = _WORD.findall(text)
    single = sum(1 for word in words if _UNSPACED.match(word))
    return len(words) - single + -(-single // _CHARACTERS_PER_WORD)


def clean_title(title: str, publisher: str = "") -> str:
    """Return the headline without entities, "BREAKING:" and the publisher's name at its end."""
    plain = normal(html.unescape(title))
    bare = _PREFIX.sub("", plain) or plain
    ending = _SUFFIX.search(bare)
    if ending and _same_name(ending["name"], publisher):
        bare = bare[: ending.start()]
    return bare or plain


def _same_name(left: str, right: str) -> bool:
    one, other = (re.sub(r"\W|^the ", "", name.casefold()) for name in (left, right))
    return bool(one) and bool(other) and (one in other or other in one)

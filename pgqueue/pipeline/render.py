"""A digest body as terminal text and as HTML.

Feeds are untrusted: control characters, escape sequences and text-direction overrides are taken
out, HTML is escaped, and only http and https addresses become links.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import urlsplit

from pgqueue.pipeline.sentences import normal

SOURCES_SHOWN = 5
MIN_WIDTH = 30
# A space at which no line is broken; `safe` leaves none in what feeds supply.
GLUE = "\N{NO-BREAK SPACE}"

REASONS = {
    "no items": "Nothing came in: no source had a new item in this window.",
    "all seen": "Nothing new: everything in this window was in an earlier digest.",
    "sources failing": "No source could be read in this window: see the sources' errors.",
}

# ECMA-48, 7 and 8 bit: CSI; OSC, DCS, SOS, PM and APC with their text; every other escape.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Return feed-supplied text as one harmless line."""
    plain = normal(_DIRECTION.sub("", _ESCAPES.sub("", text)))
    kept = "".join(char for char in plain if unicodedata.category(char) != "Cc")
    return kept.encode("utf-8", "replace").decode()


def safe_url(url: str) -> str | None:
    """Return the address if it is http(s) with a host and harmless to print, else None."""
    clean = safe(url)
    try:
        parts = urlsplit(clean)
    except ValueError:
        return None
    good = parts.scheme in ("http", "https") and bool(parts.netloc) and " " not in clean
    return clean if good and clean == url.strip() else None


def render_text(body: Mapping[str, Any], *, width: int = 80, zone: tzinfo = UTC) -> str:
    """Return the digest for a terminal, lines of at most `width` cells (addresses stay whole)."""
    width = max(width, MIN_WIDTH)
    lines = [*_wrap(_heading(body, zone), width), *_wrap(_summary(body), width)]
    for number, story in enumerate(body["stories"], 1):
        lines += ["", *_story_lines(number, story, width, zone)]
    return "\n".join(lines) + "\n"


def _heading(body: Mapping[str, Any], zone: tzinfo) -> str:
    start, end = (_moment(body["window"][key], zone) for key in ("start", "end"))
    until = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%d %b %H:%M}"
    return f"{safe(body['topic'])}: {start:%d %b %Y %H:%M} to {until} {end.tzname()}"


def _summary(body: Mapping[str, Any]) -> str:
    counts = body["counts"]
    text = REASONS.get(body["reason"] or "") or (
        f"{_many(counts['stories'], 'story', 'stories')} from "
        f"{_many(counts['new_items'], 'new item', 'new items')}"
    )
    left_out = counts["stories_left_out"]
    more = f", {left_out} more left out" if left_out else ""
    failing = counts["sources_failing"]
    health = f" ({failing} of {counts['sources']} sources failing)" if failing else ""
    return f"{text}{more}{health}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _story_lines(number: int, story: Mapping[str, Any], width: int, zone: tzinfo) -> Iterator[str]:
    numbers = _numbers(story)
    yield from _wrap(safe(story["title"]), width, f"{number}. ")
    if story["new_since"]:
        yield f"   new since {_moment(story['new_since'], zone):%d %b %H:%M}"
    for point in story["points"]:
        yield from _wrap(f"{safe(point['text'])}{GLUE}{_marks(point, numbers)}", width, "   - ")
    for source in story["sources"][: _shown(story)]:
        mark = f"   [{numbers[source['item_id']]}] "
        yield from _wrap(_source_line(source, zone), width, mark)
        yield from _address_lines(source["url"], len(mark))
    rest = len(story["sources"]) - _shown(story)
    if rest > 0:
        yield f"   and {_many(rest, 'more source', 'more sources')}"
    yield from _wrap(_score_line(story), width, "   ")


def _address_lines(url: str, indent: int) -> Iterator[str]:
    address = safe_url(url)
    if address:
        yield " " * indent + address


def _numbers(story: Mapping[str, Any]) -> dict[int, int]:
    """Return item id -> the number of its source; a copy has the number of its original."""
    numbers = {}
    for number, source in enumerate(story["sources"], 1):
        for item_id in (source["item_id"], *(copy["item_id"] for copy in source["copies"])):
            numbers[item_id] = number
    return numbers


def _shown(story: Mapping[str, Any]) -> int:
    """Return how many sources are listed: five, or as many as the points cite."""
    numbers = _numbers(story)
    cited = [min(numbers[item] for item in point["items"]) for point in story["points"]]
    return max([SOURCES_SHOWN, *cited])


def _marks(point: Mapping[str, Any], numbers: Mapping[int, int]) -> str:
    marks = sorted({numbers[item] for item in point["items"]})
    return "".join(f"[{mark}]" for mark in marks[:3])


def _source_line(source: Mapping[str, Any], zone: tzinfo) -> str:
    copies = len(source["copies"])
    extra = f" (+{_many(copies, 'copy', 'copies')})" if copies else ""
    who = safe(source["publisher"]) or "unnamed source"
    when = _moment(source["published_at"], zone)
    return f"{who}, {when:%d %b %H:%M}{extra}: {safe(source['title'])}"


def _score_line(story: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in story["score_parts"].items())
    return f"{safe(story['status'])}, score {story['score']:.2f} ({parts})"


def _moment(iso: str, zone: tzinfo) -> datetime:
    return datetime.fromisoformat(iso).astimezone(zone)


def _wrap(text: str, width: int, first: str = "") -> list[str]:
    """Return lines of at most `width` cells, continued under the text after `first`."""
    room = width - len(first)
    lines = [""]
    for piece in _pieces(text, room):
        joined = f"{lines[-1]} {piece}".strip()
        if cells(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(piece)
    pad = " " * len(first)
    return [f"{pad if at else first}{line.replace(GLUE, ' ')}" for at, line in enumerate(lines)]


def _pieces(text: str, room: int) -> Iterator[str]:
    """Yield words, and words too long for a line cut to fit: scripts without spaces wrap too."""
    for word in text.split(" "):
        while cells(word) > room:
            cut = _fitting(word, room)
            yield word[:cut]
            word = word[cut:]  # noqa: PLW2901 - what is left of it
        yield word


def _fitting(word: str, room: int) -> int:
    used = 0
    for at, char in enumerate(word):
        used += cells(char)
        if used > room:
            return max(at, 1)
    return len(word)


def cells(text: str) -> int:
    """Return the terminal cells that `text` takes: 2 for wide characters, 0 for combining ones."""
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def render_html(body: Mapping[str, Any], *, zone: tzinfo = UTC) -> str:
    """Return the digest as one `<article>`, without scripts, styles or remote content."""
    stories = "".join(_story_html(story, zone) for story in body["stories"])
    listed = f"<ol>{stories}</ol>" if stories else ""
    return (
        f'<article class="digest"><h1>{_text(_heading(body, zone))}</h1>'
        f"<p>{_text(_summary(body))}</p>{listed}</article>\n"
    )


def _story_html(story: Mapping[str, Any], zone: tzinfo) -> str:
    numbers = _numbers(story)
    since = story["new_since"]
    new = f"<p>new since {_moment(since, zone):%d %b %H:%M}</p>" if since else ""
    points = "".join(
        f"<li>{_text(point['text'])} {_marks(point, numbers)}</li>" for point in story["points"]
    )
    sources = "".join(_source_html(source, zone) for source in story["sources"])
    return (
        f"<li><h2>{_text(story['title'])}</h2>{new}<ul>{points}</ul>"
        f"<ol>{sources}</ol><p><small>{_text(_score_line(story))}</small></p></li>"
    )


def _source_html(source: Mapping[str, Any], zone: tzinfo) -> str:
    line, address = _text(_source_line(source, zone)), safe_url(source["url"])
    if address is None:
        return f"<li>{line}</li>"
    return f'<li><a href="{_text(address)}" rel="noopener noreferrer nofollow">{line}</a></li>'


def _text(text: str) -> str:
    return html.escape(safe(text), quote=True)


__all__: Sequence[str] = ["render_html", "render_text", "safe", "safe_url"]

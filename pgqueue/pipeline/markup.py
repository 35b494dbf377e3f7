"""HTML and stray bytes into text that reads well and that Postgres takes."""

from __future__ import annotations

import re
from html import unescape

from lxml import etree  # type: ignore[import-untyped] # lxml ships no types

_UNSEEN = ("script", "style", "noscript", "template", "head", "svg", "iframe", "object", "textarea")
_BLOCKS = (
    "address article aside blockquote br dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 "
    "header hr li main nav ol p pre section table tbody td tfoot th thead tr ul"
)
# Postgres refuses NUL in text; the other controls only spoil terminals.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_TAG = re.compile(r"<[^>]{0,1000}>")
_RESOURCE_LIMIT = etree.ErrorTypes.ERR_RESOURCE_LIMIT
_BLANKS = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r" ?\n\s*")


def storable(text: str) -> str:
    """The text without what Postgres or a terminal chokes on: NUL, controls, lone surrogates."""
    if _SURROGATES.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """The text as a title: storable, in one line, entities decoded."""
    return " ".join(storable(unescape(text)).split())


def plain_text(html: str) -> str:
    """All the text a reader of this HTML would see, a line per block; never raises on bad HTML."""
    if "<" not in html:
        return _tidy(unescape(html))
    root = _tree(html)
    if root is None:
        return _tidy(unescape(_TAG.sub(" ", html)))
    etree.strip_elements(root, *_UNSEEN, with_tail=False)
    for block in root.iter(*_BLOCKS.split()):
        block.text = "\n" + (block.text or "")
        block.tail = "\n" + (block.tail or "")
    return _tidy("".join(root.itertext()))


def _tree(html: str) -> etree._Element | None:
    # Bytes without NUL: libxml2 ends at the first one, and refuses text that names an encoding.
    source = storable(html).encode()
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(b"<body>" + source, parser)
    except etree.LxmlError:
        return None
    # Past 256 levels libxml2 drops the rest without a word.
    too_deep = parser.error_log.filter_from_fatals().filter_types([_RESOURCE_LIMIT])
    return None if too_deep else root


def _tidy(text: str) -> str:
    return _LINE_ENDS.sub("\n", _BLANKS.sub(" ", storable(text))).strip()

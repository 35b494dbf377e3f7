"""Copies: which items say the same as an earlier one. MinHash (Broder 1997) over word triples."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pgqueue.pipeline.embed import text_of, tokens

NEAR = 0.8
"""Jaccard similarity of word triples from which on an item is a copy."""

# The same headline over two long texts is a copy only if the texts agree a little: a daily column
# keeps its headline and is news every day.
SAME_TITLE = 0.3
LONG_TEXT = 20
# Shorter headlines ("Live updates", "Photos") are used for different stories.
TITLE_WORDS = 4

# 32 bands of 4: a pair at Jaccard .8 is missed with probability (1 - .8^4)^32 < 1e-7.
_BANDS, _ROWS = 32, 4
_SEEDS = np.frombuffer(hashlib.shake_256(b"pgqueue").digest(_BANDS * _ROWS * 16), "<u8")
_FACTORS, _OFFSETS = np.split(_SEEDS | np.uint64(1), 2)

Shingles = NDArray[np.uint64]


class Dated(Protocol):
    """What items are ordered by."""

    @property
    def id(self) -> int: ...
    @property
    def published_at(self) -> datetime: ...


class Entry(Dated, Protocol):
    """What is compared of an item; `canonical_url` and `content_hash` may be empty."""

    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def canonical_url(self) -> str: ...
    @property
    def content_hash(self) -> str: ...


def find_copies(new: Iterable[Entry], known: Iterable[Entry] = ()) -> dict[int, int]:
    """Return, for each new item that is a copy, the id of the original among the items given.

    Known items are earlier than new ones; within both the order is (published_at, id).
    """
    index = _Index()
    for entry in in_order(known):
        index.add(entry)
    found = ((entry.id, index.add(entry)) for entry in in_order(new))
    return {item: original for item, original in found if item != original}


DatedT = TypeVar("DatedT", bound=Dated)


def in_order(entries: Iterable[DatedT]) -> list[DatedT]:
    """Return the entries ordered by (published_at, id), the order of all work here."""
    return sorted(entries, key=lambda entry: (entry.published_at, entry.id))


@dataclass
class _Index:
    """Originals so far, by exact keys and by MinHash bands."""

    exact: dict[str, int] = field(default_factory=dict)
    titles: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    bands: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    shingles: dict[int, Shingles] = field(default_factory=dict)
    arrival: dict[int, int] = field(default_factory=dict)
    long: set[int] = field(default_factory=set)

    def add(self, entry: Entry) -> int:
        """Return the id of the original that `entry` copies, or its own id."""
        shingles = _shingles(entry)
        keys = list(_exact_keys(entry, shingles))
        bands = list(_bands(shingles))
        long = len(tokens(entry.text)) >= LONG_TEXT
        title = _title_key(entry)
        original = self._find(keys, title, bands, shingles, long=long)
        for key in keys:
            self.exact.setdefault(key, entry.id if original is None else original)
        if original is not None:
            # Only originals are searched by likeness: copies of copies would drift away.
            return original
        self.arrival[entry.id] = len(self.arrival)
        self.shingles[entry.id] = shingles
        self.titles[title].append(entry.id)
        self.long.update([entry.id] if long else [])
        for band in bands:
            self.bands[band].append(entry.id)
        return entry.id

    def _find(
        self, keys: list[str], title: str, bands: list[bytes], shingles: Shingles, *, long: bool
    ) -> int | None:
        exact = next((self.exact[key] for key in keys if key in self.exact), None)
        if exact is not None:
            return exact
        for other in self.titles.get(title, []) if title else []:
            both_long = long and other in self.long
            if not both_long or jaccard(shingles, self.shingles[other]) >= SAME_TITLE:
                return other
        near = {other for band in bands for other in self.bands.get(band, [])}
        alike = [other for other in near if jaccard(shingles, self.shingles[other]) >= NEAR]
        return min(alike, key=self.arrival.__getitem__, default=None)


def jaccard(left: Shingles, right: Shingles) -> float:
    """Return the shared part of two sets of distinct shingles, 0 to 1; 0 for two empty sets."""
    shared = np.intersect1d(left, right, assume_unique=True).size
    total = left.size + right.size - shared
    return shared / total if total else 0.0


def _exact_keys(entry: Entry, shingles: Shingles) -> Iterator[str]:
    if entry.canonical_url:
        yield f"url {entry.canonical_url}"
    if entry.content_hash and shingles.size:
        yield f"hash {entry.content_hash}"


def _title_key(entry: Entry) -> str:
    words = tokens(entry.title)
    return " ".join(words) if len(words) >= TITLE_WORDS else ""


def _shingles(entry: Entry) -> Shingles:
    words = tokens(text_of(entry.title, entry.text))
    triples = [" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))]
    codes = [zlib.crc32(triple.encode("utf-8", "replace")) for triple in triples if words]
    return np.unique(np.array(codes, np.uint64))


def _bands(shingles: Shingles) -> Iterator[bytes]:
    if not shingles.size:
        return
    # Multiply-shift hashing (Dietzfelbinger et al. 1997): uint64 wraps, the high half counts.
    hashed = (shingles[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
    signature = hashed.min(axis=0).astype("<u4").reshape(_BANDS, _ROWS)
    for number, band in enumerate(signature):
        yield bytes([number]) + band.tobytes()

"""How long the claims took, from the server's own log of statements and their durations."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[(\d+)\] ", re.MULTILINE)
_DURATION = re.compile(r"LOG:\s+duration: ([\d.]+) ms\s+(parse|bind|execute|statement)")
_CLAIM = re.compile(r"skip locked.*set\s+(?:state = 'running'|status = 1)", re.DOTALL)


def claim_times(log: str) -> Iterator[float]:
    """Milliseconds of each claim, ours or that of the bare loop.

    What the server spent on parsing and binding it (where planning happens) counts in.
    """
    before: dict[str, float] = {}
    for process, text in _entries(log):
        found = _DURATION.search(text)
        if found is None or not _CLAIM.search(text):
            continue
        spent = float(found[1]) + before.pop(process, 0.0)
        if found[2] in ("parse", "bind"):
            before[process] = spent
        else:
            yield spent


def _entries(log: str) -> Iterator[tuple[str, str]]:
    starts = list(_ENTRY.finditer(log))
    ends = [start.start() for start in starts[1:]] + [len(log)]
    for start, end in zip(starts, ends, strict=True):
        yield start[1], log[start.end() : end]

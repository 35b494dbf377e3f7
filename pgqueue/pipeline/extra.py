"""Turns a missing optional library into one line that says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pgqueue.errors import ExtraMissing

LIBRARIES = ("feedparser", "httpx2", "lxml", "numpy")


def is_installed() -> bool:
    """Whether the libraries of the extra `pipeline` are there; imports none of them."""
    return all(find_spec(name) is not None for name in LIBRARIES)


@contextmanager
def needs_pipeline(what: str) -> Iterator[None]:
    """Around imports: raises ExtraMissing naming the extra `pipeline` when a library is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A missing module of our own is a bug, not an extra.
        if (error.name or "").partition(".")[0] == "pgqueue":
            raise
        raise ExtraMissing(what, "pipeline") from error

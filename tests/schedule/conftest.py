"""Fixtures of this room: moved time and recorded events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proving import Clock, Recorder, listening


@pytest.fixture
def clock(database: str) -> Clock:
    """The time of the test's database, standing still until it is moved."""
    return Clock(database)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with listening() as recorder:
        yield recorder

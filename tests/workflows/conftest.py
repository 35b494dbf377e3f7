"""Fixtures of this room: moved time and recorded events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgqueue import PgQueue
from proving import Clock, Recorder, listening


@pytest.fixture
def clock(database: str) -> Clock:
    """The time of the test's database, standing still until it is moved."""
    return Clock(database)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with listening() as recorder:
        yield recorder


@pytest.fixture
def nowhere() -> Iterator[PgQueue]:
    """An app whose database nobody can reach."""
    app = PgQueue("postgresql://nobody@127.0.0.1:1/nothing")
    yield app
    app.close()

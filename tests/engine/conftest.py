"""Fixtures of this room: moved time and recorded events."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from admitting import passing_on
from pgqueue import PgQueue
from pgqueue.engine.limits import Pass
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
def passing(database: str, pgq: PgQueue) -> Callable[..., Pass]:
    """One pass of admission."""
    return passing_on(pgq, database)

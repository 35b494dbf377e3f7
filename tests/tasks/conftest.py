"""Fixtures of this room: recorded events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proving import Recorder, listening


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with listening() as recorder:
        yield recorder

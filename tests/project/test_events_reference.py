"""The published table of events is what the code emits."""

from __future__ import annotations

import pytest

from pgqueue.events import Event
from project.events_reference import PAGE, kinds, reference


def test_the_page_of_events_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "make docs writes it anew"


@pytest.mark.parametrize("kind", kinds())
def test_each_event_says_when_it_comes(kind: type[Event]) -> None:
    # A dataclass without a docstring of its own is given its signature for one.
    assert kind.__doc__ is not None
    assert not kind.__doc__.startswith(f"{kind.__name__}(")

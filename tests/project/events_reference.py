"""docs/events.md, out of pgqueue/events.py: `make docs` writes it anew."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from pgqueue import events
from pgqueue.events import Event

PAGE = Path(__file__).resolve().parents[2] / "docs" / "events.md"
_HEAD = """\
# Events

Made from `pgqueue/events.py`. Each event is a frozen dataclass; subscribe to all of them:

```python
from pgqueue import events

undo = events.subscribe(print)  # called in the thread that emits; be quick
undo()
```

Times are in seconds. A worker's logs are these events in words; those of every single job are at
level debug.

| event | when | fields |
| --- | --- | --- |
"""


def kinds() -> list[type[Event]]:
    """All events, in the order in which they stand in the module."""
    return [
        kind
        for kind in vars(events).values()
        if inspect.isclass(kind) and issubclass(kind, Event) and kind is not Event
    ]


def reference() -> str:
    """The page as it should be."""
    return _HEAD + "".join(f"{_row(kind)}\n" for kind in kinds())


def _row(kind: type[Event]) -> str:
    when = " ".join(inspect.getdoc(kind).split()) if kind.__doc__ else ""
    fields = ", ".join(
        f"`{field.name}: {field.type}`".replace("|", "\\|") for field in dataclasses.fields(kind)
    )
    return f"| `{kind.__name__}` | {when} | {fields} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

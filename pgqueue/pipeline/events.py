"""What happens in a run of the pipeline; the queue's own events are in pgqueue.events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgqueue.events import Event


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    window_id: int
    stage: str


@dataclass(frozen=True, slots=True)
class SourceRead(Event):
    """One source was read and its rows are committed; `error` says why nothing came."""

    window_id: int
    source_id: int
    name: str
    entries: int
    new_items: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ItemsEmbedded(Event):
    """One batch is committed."""

    window_id: int
    items: int


@dataclass(frozen=True, slots=True)
class StageWritten(Event):
    """The stage's rows and its checkpoint are written; the transaction is about to commit."""

    window_id: int
    stage: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StageCommitted(Event):
    window_id: int
    stage: str
    counts: Mapping[str, int]
    milliseconds: int


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The window is done; `counts` and `milliseconds` by stage, as its row keeps them."""

    window_id: int
    topic_id: int
    counts: Mapping[str, Mapping[str, int]]
    milliseconds: Mapping[str, int]

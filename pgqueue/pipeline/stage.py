"""What all stages share: the window they work on, and the checkpoint that ends each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg.rows import dict_row

from pgqueue.errors import Snooze
from pgqueue.events import emit
from pgqueue.pipeline.events import StageCommitted, StageStarted, StageWritten
from pgqueue.pipeline.guard import Allowed

STAGES = ("ingest", "embed", "cluster", "digest")
"""In order; a window's `stage` is the last one that is committed, `started` before the first."""

Connection = psycopg.Connection[Any]
Counts = dict[str, int]


class Transaction(Protocol):
    """Opens one short transaction; `job.transaction` is one, and proves the lease at commit."""

    def __call__(self) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True, slots=True)
class Topic:
    """The columns of a topic that a run needs."""

    id: int
    org_id: int
    user_id: int
    name: str
    keywords: list[str]
    timezone: str
    embedder: str
    revision: int


@dataclass(frozen=True, slots=True)
class Window:
    """A row of content.windows and the database's clock when it was read."""

    id: int
    topic_id: int
    window_start: datetime
    window_end: datetime
    mode: str
    items_since: datetime
    stage: str
    model: str | None
    counts: Mapping[str, Counts]
    milliseconds: Mapping[str, int]
    now: datetime

    @property
    def next_stage(self) -> str | None:
        """The stage to run now, or None when all are committed."""
        done = STAGES.index(self.stage) + 1 if self.stage in STAGES else 0
        return STAGES[done] if done < len(STAGES) else None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the window and its topic as they were when the stage began, and the ways out."""

    sql: Mapping[str, str]
    transaction: Transaction
    cancelled: Callable[[], bool]
    allow: Allowed
    topic: Topic
    window: Window
    began: float = field(default_factory=time.monotonic)

    @property
    def ids(self) -> dict[str, Any]:
        """The parameters that most statements take."""
        return {
            "org_id": self.topic.org_id,
            "user_id": self.topic.user_id,
            "topic_id": self.topic.id,
            "window_id": self.window.id,
            "window_start": self.window.window_start,
            "window_end": self.window.window_end,
            "items_since": self.window.items_since,
            "mode": self.window.mode,
            "model": self.window.model,
        }

    def rows(
        self, connection: Connection, statement: str, /, **params: Any
    ) -> list[dict[str, Any]]:
        """The rows that the named statement answers with."""
        return rows_of(connection, self.sql[statement], {**self.ids, **params})

    def row(self, connection: Connection, statement: str, /, **params: Any) -> dict[str, Any]:
        """The one row of the named statement."""
        (row,) = self.rows(connection, statement, **params)
        return row

    def check_stop(self) -> None:
        """Raise Snooze when the worker wants its thread back; what is committed stays."""
        if self.cancelled():
            raise Snooze(0, "the worker stops")

    def start(self, stage: str) -> None:
        emit(StageStarted(self.window.id, stage))

    def commit(
        self, stage: str, write: Callable[[Connection], Counts | None], **changes: Any
    ) -> None:
        """Write the stage's rows and its checkpoint in one transaction.

        Nothing is written when somebody else has moved the window meanwhile, or when `write`
        returns None: what it was given is out of date, and the stage is to be run again.
        """
        with self.transaction() as connection:
            if self.row(connection, "lock_window")["stage"] != self.window.stage:
                return
            counts = write(connection)
            if counts is None:
                return
            milliseconds = round((time.monotonic() - self.began) * 1000)
            self.rows(
                connection,
                "checkpoint",
                stage=stage,
                counts=json.dumps(counts),
                milliseconds=milliseconds,
                **changes,
            )
            emit(StageWritten(self.window.id, stage, counts))
        emit(StageCommitted(self.window.id, stage, counts, milliseconds))


def rows_of(
    connection: Connection, statement: str, params: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a statement, each by column name; none for one that returns nothing."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

"""Stage 1: what the topic's sources have that is new, and which of it belongs to this window."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg

from pgqueue.events import emit
from pgqueue.pipeline.events import SourceRead
from pgqueue.pipeline.markup import storable
from pgqueue.pipeline.reading import PolledSource, Reading, read_all
from pgqueue.pipeline.stage import Connection, Counts, Run
from pgqueue.pipeline.urls import canonical

_log = logging.getLogger("pgqueue.pipeline")

POLL_EVERY = 900.0
"""Seconds until a source that answered is asked again, at the earliest."""

POLL_AT_MOST = 6 * 3600.0
MOVED_AFTER = 3
"""Equal answers 301 or 308 in a row after which the new address is believed."""


def ingest(run: Run) -> None:
    """Read every source that is due, each written in its own transaction; then claim the items."""
    run.start("ingest")
    with run.transaction() as connection:
        found = [PolledSource(**row) for row in run.rows(connection, "list_polled_sources")]
    due = [source for source in found if source.due]
    tally = {"polled": 0, "failed": 0, "unchanged": 0, "entries": 0, "new": 0}
    readings = read_all(due, allow=run.allow, first_seen_at=run.window.now, cancelled=run.cancelled)
    for reading in readings:
        run.check_stop()
        _count(tally, reading, _write_source(run, reading))
    run.check_stop()
    run.commit("ingest", lambda connection: _claim(run, connection, tally))


def _count(tally: Counts, reading: Reading, new: int) -> None:
    tally["polled"] += 1
    tally["failed"] += reading.error is not None
    tally["unchanged"] += reading.answer is not None and reading.answer.not_modified
    tally["entries"] += len(reading.items)
    tally["new"] += new


def _claim(run: Run, connection: Connection, tally: Counts) -> Counts:
    run.rows(connection, "lock_topic")
    run.rows(connection, "claim_items")
    claimed = run.row(connection, "count_claimed")
    sources = run.row(connection, "count_sources")
    return {**tally, **claimed, **sources}


def _write_source(run: Run, reading: Reading) -> int:
    """One source's rows and its state; returns how many items were new."""
    try:
        new = _write_reading(run, reading)
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
        # Whatever a stranger's feed holds that Postgres will not take: this source alone fails.
        reason = f"cannot be stored: {str(error).splitlines()[0]}"
        reading = Reading(reading.source, error=reason)
        new = _write_reading(run, reading)
    source, error_text = reading.source, reading.error
    name = source.name or source.url
    if error_text is not None:
        _log.info(
            "source %s (%s) of topic %s failed: %s", source.id, name, run.topic.id, error_text
        )
    emit(SourceRead(run.window.id, source.id, name, len(reading.items), new, error_text))
    return new


def _write_reading(run: Run, reading: Reading) -> int:
    source, new = reading.source, 0
    with run.transaction() as connection:
        run.rows(connection, "touch_window")
        # One writer of a topic at a time: two sources with the same items in another order would
        # wait for each other.
        run.rows(connection, "lock_topic")
        if reading.items:
            items = json.dumps([asdict(item) for item in reading.items], default=_iso)
            new = run.row(connection, "insert_items", source_id=source.id, items=items)["new"]
        name, params = _outcome(reading)
        run.rows(connection, name, source_id=source.id, **params)
        if params.get("moved_count", 0) >= MOVED_AFTER:
            _move(run, connection, source, str(params["moved_to"]))
    return new


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no value of an item")


def _outcome(reading: Reading) -> tuple[str, Mapping[str, Any]]:
    """The statement that writes the source's state, with its parameters."""
    source, answer = reading.source, reading.answer
    if answer is None or reading.error is not None:
        return "source_failed", {
            "error": storable(reading.error or ""),
            "gone": reading.gone,
            "wait": _wait(reading, source.failures + 1),
        }
    moved_to = answer.permanent_url
    again = moved_to is not None and moved_to == source.moved_to
    return "source_answered", {
        "etag": answer.etag,
        "last_modified": answer.last_modified,
        "not_modified": answer.not_modified,
        "moved_to": moved_to,
        "moved_count": (source.moved_count + 1 if again else 1) if moved_to else 0,
        "wait": _wait(reading, 0),
    }


def _wait(reading: Reading, failures: int) -> float:
    """Seconds until the next poll: longer after each failure, never sooner than asked for."""
    if reading.source.file_root is not None:
        return 0.0
    usual = min(POLL_EVERY * 2.0 ** max(failures - 1, 0), POLL_AT_MOST)
    # Spread, so that a crowd of sources does not come due at one instant.
    return max(usual * random.uniform(0.8, 1.2), reading.retry_after or 0.0)  # noqa: S311 - spread


def _move(run: Run, connection: Connection, source: PolledSource, url: str) -> None:
    canonical_url = canonical(url)
    if canonical_url is not None and source.file_root is None:
        run.rows(
            connection, "move_source", source_id=source.id, url=url, canonical_url=canonical_url
        )

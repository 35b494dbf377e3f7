"""What handlers say about their jobs: progress and log lines, fenced by the lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgqueue.db.run import Rows, Statement

Sql = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a try is, in percent."""

    job_id: int
    lease: int
    percent: float
    message: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a job's log, said at `said_at` by the worker's monotonic clock."""

    job_id: int
    lease: int
    said_at: float
    level: str
    message: str


Note = Progress | LogLine


def note_statements(sql: Sql, notes: Sequence[Note], now: float) -> list[Statement]:
    """The statements that write them; `now` by the same clock as `said_at`."""
    last = {note.job_id: note for note in notes if isinstance(note, Progress)}
    lines = [note for note in notes if isinstance(note, LogLine)]
    statements = []
    if last:
        statements.append(_progress(sql, list(last.values())))
    if lines:
        statements.append(_lines(sql, lines, now))
    return statements


def unsaid(notes: Sequence[Note], replies: Sequence[Rows]) -> list[Progress]:
    """The progress that the statements of `note_statements` did not write; lines always are."""
    last = {note.job_id: note for note in notes if isinstance(note, Progress)}
    said = {job_id for (job_id,) in replies[0]} if last else set()
    return [note for job_id, note in last.items() if job_id not in said]


def _progress(sql: Sql, notes: Sequence[Progress]) -> Statement:
    params = {
        "ids": [note.job_id for note in notes],
        "leases": [note.lease for note in notes],
        "percents": [note.percent for note in notes],
        "messages": [note.message for note in notes],
    }
    return Statement(sql["write_progress"], params)


def _lines(sql: Sql, notes: Sequence[LogLine], now: float) -> Statement:
    params = {
        "ids": [note.job_id for note in notes],
        "leases": [note.lease for note in notes],
        "ages": [max(0.0, now - note.said_at) for note in notes],
        "levels": [note.level for note in notes],
        "messages": [note.message for note in notes],
    }
    return Statement(sql["write_logs"], params)

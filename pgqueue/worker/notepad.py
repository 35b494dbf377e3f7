"""Collects what handlers say until the worker writes it down; handlers never wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pgqueue.engine.notes import LogLine, Note, Progress

MESSAGE_LIMIT = 2_000
"""Characters of a message that are kept."""

LINES_LIMIT = 10_000
"""Log lines that wait at most; a handler that says more than can be written loses the oldest."""

LEVELS = ("debug", "info", "warning", "error")


class Notepad:
    """Notes of the running jobs; written to from any thread, emptied by the claim loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: list[Note] = []

    def progress(self, job_id: int, lease: int, percent: float, message: str) -> None:
        """Raises ValueError for a percentage outside of 0 to 100."""
        if not 0 <= percent <= 100:  # noqa: PLR2004 - per cent
            raise ValueError(f"progress({percent!r}): 0 to 100 percent")
        self.add(Progress(job_id, lease, float(percent), _storable(message)))

    def log(self, job_id: int, lease: int, message: str, level: str) -> None:
        """Raises ValueError for an unknown level."""
        if level not in LEVELS:
            raise ValueError(f"log(level={level!r}): one of {', '.join(LEVELS)}")
        self.add(LogLine(job_id, lease, time.monotonic(), level, _storable(message)))

    def take(self) -> list[Note]:
        """All notes; `give_back` those that could not be written."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    def take_of(self, job_id: int) -> list[Note]:
        """The notes of one job."""
        with self._lock:
            taken = [note for note in self._notes if note.job_id == job_id]
            self._notes = [note for note in self._notes if note.job_id != job_id]
        return taken

    def give_back(self, notes: Sequence[Note]) -> None:
        with self._lock:
            self._notes = [*notes, *self._notes][-LINES_LIMIT:]

    def __bool__(self) -> bool:
        return bool(self._notes)

    def add(self, note: Note) -> None:
        """Keep a note that was checked before."""
        with self._lock:
            self._notes.append(note)
            del self._notes[:-LINES_LIMIT]


def _storable(text: str) -> str:
    clean = str(text).replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return clean[:MESSAGE_LIMIT]

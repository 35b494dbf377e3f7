"""Says that the worker lives, from a thread and a connection of its own.

A handler that blocks the event loop must not stop the heartbeat: its jobs would be rescued while
they run. Only when every one of them has had its time are they given up. And when the beat does not
get through, the worker stops its own handlers before others may take its leases; all by the
monotonic clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import psycopg
from psycopg.rows import TupleRow

from pgqueue.db.pools import connect
from pgqueue.db.run import run
from pgqueue.engine.rescue import beat
from pgqueue.errors import PgQueueError
from pgqueue.events import ConnectionLost, ConnectionRestored, DutyFailed, LoopStalled, emit

GAP_BEATS = 2.5
"""Beats in whose time none got through, until that is a gap and no mere delay."""

STALLED_AFTER = 2.0
"""Seconds without a sign of the event loop that are told, at the least: a busy machine is no
blocking handler."""


class Body(Protocol):
    """What the heart needs to know of its worker, and what it tells it; called in its thread."""

    def worker_id(self) -> int: ...
    def started_ids(self) -> list[int]: ...
    def loop_silence(self) -> float: ...
    def is_stuck(self) -> bool: ...
    def proven_until(self, moment: float) -> None: ...
    def fence(self, silent_seconds: float) -> None: ...
    def unfence(self) -> None: ...
    def declared_dead(self) -> None: ...


class Heart:
    """A thread that beats every `interval` seconds until `stop`."""

    def __init__(
        self,
        body: Body,
        sql: Mapping[str, str],
        conninfo: Callable[[], str],
        *,
        interval: float,
        timeout: float,
    ) -> None:
        self._body = body
        self._sql = sql
        self._conninfo = conninfo
        self._interval = interval
        # Two intervals before rescue may begin: time for handlers to stop.
        self._fence_after = timeout - 2 * interval
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._last_beat = time.monotonic()
        self._last_try = self._last_beat
        self._gap_ended: float | None = None
        self._lost_at: float | None = None
        self._fenced = False
        self._deciding = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pgqueue-heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; safe to call twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * self._interval)

    @property
    def is_fenced(self) -> bool:
        """Whether the worker's handlers were stopped because beats did not get through."""
        return self._fenced

    def silence(self) -> float:
        """Seconds since the last beat that got through."""
        return time.monotonic() - self._last_beat

    def idleness(self) -> float:
        """Seconds since the thread last began a beat: long when it hangs or has died."""
        return time.monotonic() - self._last_try

    def steadiness(self) -> float:
        """Seconds since beats get through again after a gap of two or more; 0 while they do not.

        Infinite without such a gap. Who could not reach the database cannot tell who else could.
        """
        if self.silence() > GAP_BEATS * self._interval:
            return 0.0
        return float("inf") if self._gap_ended is None else time.monotonic() - self._gap_ended

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.beat_once()
            except Exception as error:  # noqa: BLE001 - told; a heart that dies takes live work along
                emit(DutyFailed("heart", f"{type(error).__name__}: {error}"))
                self._missed(str(error))
        if self._connection is not None:
            self._connection.close()

    def beat_once(self) -> None:
        """One beat, and what follows when it did not get through."""
        began = self._last_try = time.monotonic()
        if self._body.is_stuck():
            # Nobody else would ever end its jobs: others may take them.
            self.check()
        else:
            self._beat_or_miss(began)
        silence = self._body.loop_silence()
        if silence > max(STALLED_AFTER, 2 * self._interval):
            emit(LoopStalled(self._body.worker_id(), silence))

    def _beat_or_miss(self, began: float) -> None:
        try:
            alive = self._beat()
        except (psycopg.Error, PgQueueError) as error:
            self._missed(str(error))
        else:
            self._got_through(began)
            if alive:
                self._body.proven_until(began + self._fence_after)
            else:
                self._body.declared_dead()

    def _beat(self) -> bool:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._conninfo())
        steps = beat(self._sql, self._body.worker_id(), self._body.started_ids())
        return run(self._connection, steps)

    def _got_through(self, began: float) -> None:
        if began - self._last_beat > GAP_BEATS * self._interval:
            self._gap_ended = began
        # From the beat's start: the database stamped it no earlier than that.
        self._last_beat = began
        if self._lost_at is not None:
            emit(ConnectionRestored("heart", time.monotonic() - self._lost_at))
            self._lost_at = None
        with self._deciding:
            was_fenced, self._fenced = self._fenced, False
        if was_fenced:
            self._body.unfence()

    def _missed(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            emit(ConnectionLost("heart", reason.strip()))
        self.check()

    def check(self) -> None:
        """Fence the worker if the last beat is too old; asked from outside, too, since a beat
        that hangs in a dead connection cannot say so itself."""
        silent = time.monotonic() - self._last_beat
        with self._deciding:
            if silent < self._fence_after or self._fenced:
                return
            self._fenced = True
        self._body.fence(silent)

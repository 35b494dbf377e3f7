"""The pipeline over one window: the stages in order, each from where the last run left off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pgqueue.errors import ConfigError, Fail, LeaseLost, Verdict
from pgqueue.events import emit
from pgqueue.pipeline.clustering import cluster_items
from pgqueue.pipeline.digesting import write_digest
from pgqueue.pipeline.embedding import embed_items
from pgqueue.pipeline.events import RunFinished
from pgqueue.pipeline.guard import parse_allow
from pgqueue.pipeline.ingest import ingest
from pgqueue.pipeline.stage import Connection, Run, Topic, Transaction, Window, rows_of
from pgqueue.sql import load

if TYPE_CHECKING:
    from pgqueue import PgQueue
    from pgqueue.settings import Settings

MODES = ("window", "catchup", "since-last-run", "backfill")
EARLIER_SECONDS = 60
"""An earlier window that has not moved for so long is not waited for any longer."""

_RUN: Mapping[str, Callable[[Run], None]] = {
    "ingest": ingest,
    "embed": embed_items,
    "cluster": cluster_items,
    "digest": write_digest,
}
_log = logging.getLogger("pgqueue.pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which window of which topic; instants know their zones."""

    user_id: int
    topic_id: int
    window_start: datetime
    window_end: datetime
    mode: str = "window"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode {self.mode!r} is not known: {', '.join(MODES)}")
        if None in (self.window_start.tzinfo, self.window_end.tzinfo):
            raise ConfigError("window_start and window_end must have a time zone")
        if self.window_start >= self.window_end:
            raise ConfigError(
                f"the window ends ({self.window_end.isoformat()}) before it has begun "
                f"({self.window_start.isoformat()})"
            )


def run_pipeline_once(
    pgq: PgQueue,
    *,
    user_id: int,
    topic_id: int,
    window_start: datetime,
    window_end: datetime,
    mode: str = "window",
) -> dict[str, Any]:
    """Run one window in this process, without a job; returns what `run_window` returns.

    Raises ConfigError for a window that is none, Fail when there is no such topic.
    """

    @contextmanager
    def transaction() -> Iterator[Connection]:
        with pgq.connection() as connection, connection.transaction():
            yield connection

    asked = Asked(
        user_id=user_id,
        topic_id=topic_id,
        window_start=window_start,
        window_end=window_end,
        mode=mode,
    )
    return run_window(asked, pgq.settings, transaction, lambda: False)


def run_window(
    asked: Asked, settings: Settings, transaction: Transaction, cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Bring the window to its digest; returns its id, and counts and milliseconds by stage.

    A window that is done stays as it is. `cancelled` is asked between short steps; a stop raises
    Snooze. Raises Fail when there is no such topic.
    """
    sql = load("pgqueue.pipeline.sql", settings.schema_name)
    allow = parse_allow(settings.fetch_allow)
    window_id = _open(asked, sql, transaction)

    def current() -> Run:
        with transaction() as connection:
            topic = _topic(asked, sql, connection)
            (row,) = rows_of(connection, sql["read_window"], {"window_id": window_id})
        return Run(sql, transaction, cancelled, allow, topic, Window(**row))

    try:
        run = current()
        if run.window.next_stage is not None:
            _wait_for_earlier(run)
            run = _stages(current)
    except (Verdict, LeaseLost):
        raise
    except Exception as error:
        _note_failure(sql, transaction, window_id, error)
        raise
    return {
        "window_id": window_id,
        "counts": run.window.counts,
        "milliseconds": run.window.milliseconds,
    }


def _stages(current: Callable[[], Run]) -> Run:
    """Run what is left, always from the window's row: somebody else may work on it, too."""
    run = current()
    while (stage := run.window.next_stage) is not None:
        run.check_stop()
        _RUN[stage](run)
        run = current()
    window = run.window
    emit(RunFinished(window.id, window.topic_id, window.counts, window.milliseconds))
    _log.info("%s", _summary(run))
    return run


def _summary(run: Run) -> str:
    window, counts = run.window, run.window.counts
    seconds = sum(window.milliseconds.values()) / 1000
    return (
        f"window {window.id} of topic {window.topic_id} done in {seconds:.1f} s: "
        f"{counts['ingest']['polled']} sources read, {counts['ingest']['failed']} failed, "
        f"{counts['ingest']['items']} items ({counts['ingest']['late']} late), "
        f"{counts['embed']['new']} embedded, {counts['cluster']['stories']} stories "
        f"({counts['cluster']['new_stories']} new), {counts['digest']['stories']} told"
    )


def _open(asked: Asked, sql: Mapping[str, str], transaction: Transaction) -> int:
    with transaction() as connection:
        topic = _topic(asked, sql, connection)
        (row,) = rows_of(
            connection,
            sql["open_window"],
            {
                "org_id": topic.org_id,
                "user_id": topic.user_id,
                "topic_id": topic.id,
                "window_start": asked.window_start,
                "window_end": asked.window_end,
                "mode": asked.mode,
            },
        )
    return int(row["id"])


def _topic(asked: Asked, sql: Mapping[str, str], connection: Connection) -> Topic:
    rows = rows_of(connection, sql["read_topic"], {"topic_id": asked.topic_id})
    # Somebody else's topic is told to be missing: its existence is not for everybody.
    if not rows or rows[0]["user_id"] != asked.user_id:
        raise Fail(f"user {asked.user_id} has no topic {asked.topic_id}")
    return Topic(**rows[0])


def _wait_for_earlier(run: Run) -> None:
    """Let earlier windows of the topic end first, so that catching up tells news in order."""
    give_up = time.monotonic() + EARLIER_SECONDS
    while time.monotonic() < give_up:
        run.check_stop()
        with run.transaction() as connection:
            if not run.row(connection, "earlier_at_work", seconds=EARLIER_SECONDS)["at_work"]:
                return
        time.sleep(0.2)


def _note_failure(
    sql: Mapping[str, str], transaction: Transaction, window_id: int, error: Exception
) -> None:
    """The reason on the window's row, where people look; the job's row keeps the traceback."""
    text = f"{type(error).__name__}: {error}".replace("\x00", "\ufffd")[:2000]
    try:
        with transaction() as connection:
            rows_of(connection, sql["fail_window"], {"window_id": window_id, "error": text})
    except Exception:  # noqa: BLE001 - the first error is the one to be told
        _log.warning("the failure of window %s could not be noted on its row", window_id)

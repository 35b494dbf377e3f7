"""What `pgq demo` sets up: a topic with sample or public feeds, its last closed window due now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pgqueue import embedded
from pgqueue.errors import PgQueueError
from pgqueue.pipeline.inbox import find_digest
from pgqueue.pipeline.samples import (
    LIVE_FEEDS,
    SAMPLE_FEEDS,
    SAMPLE_KEYWORDS,
    SAMPLE_TOPIC,
    write_samples,
)
from pgqueue.pipeline.store import FIRST_USER, Row, desk
from pgqueue.pipeline.topics import (
    WINDOW_TIMES,
    add_source,
    add_topic,
    cron_of,
    schedule_name,
)
from pgqueue.schedule.cron import Cron

if TYPE_CHECKING:
    from pgqueue import PgQueue

LIVE_TOPIC = f"{SAMPLE_TOPIC} (live)"
_OVER = ("failed", "cancelled", "lost")
"""How a window's job ends without a digest; `lost` when its row was deleted."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's topic and the window that it runs, in UTC."""

    topic_id: int
    topic: str
    window_start: datetime
    window_end: datetime

    @property
    def schedule(self) -> str:
        return schedule_name(self.topic_id)


def prepare(pgq: PgQueue, folder: Path) -> Demo:
    """The sample topic, its feeds written into `folder`; again and again leads to the same."""
    demo = _topic(pgq, SAMPLE_TOPIC)
    paths = write_samples(folder, window_start=demo.window_start, window_end=demo.window_end)
    for feed, path in zip(SAMPLE_FEEDS, paths, strict=True):
        url = path.resolve().as_uri()
        add_source(pgq, url, topic=str(demo.topic_id), name=feed.name, files_under=folder)
    _make_due(pgq, demo)
    return demo


def prepare_live(pgq: PgQueue) -> Demo:
    """The same with public feeds, for a machine that can reach them."""
    demo = _topic(pgq, LIVE_TOPIC)
    for feed in LIVE_FEEDS:
        add_source(pgq, feed.url, topic=str(demo.topic_id), name=feed.name)
    _make_due(pgq, demo)
    return demo


def settle(pgq: PgQueue, demo: Demo) -> None:
    """Leave the schedules as a person would want them.

    The live topic goes on with the usual delay. The sample topic stops: its next windows would be
    empty, for nobody writes news into its feeds.
    """
    if demo.topic == LIVE_TOPIC:
        add_topic(pgq, demo.topic, keywords=SAMPLE_KEYWORDS)
        return
    with desk(pgq) as at:
        at.rows("pause_schedule", schedule=demo.schedule)


def sample_folder(pgq: PgQueue) -> Path:
    """Where the sample feeds are written: beside the embedded server's files, or the user's data.

    Call it when the server has been started: its folder is made by the server.
    """
    if pgq.settings.database_url is None:
        return (pgq.settings.embedded_dir or embedded.default_directory()) / "samples"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "pgqueue" / "samples"


def due_job(pgq: PgQueue, demo: Demo) -> int:
    """The id of the job that makes the window's digest.

    After the tick that is the schedule's. Where that one is over without a digest, as after a
    failure in an earlier run, it is a new one: a window is scheduled only once.
    """
    with desk(pgq) as at:
        found = at.first("window_job", schedule=demo.schedule, window_end=demo.window_end)
    if found is not None and found["job_id"] is not None and found["state"] not in _OVER:
        return int(found["job_id"])
    payload = {
        "user_id": FIRST_USER,
        "topic_id": demo.topic_id,
        "window_start": demo.window_start,
        "window_end": demo.window_end,
    }
    return pgq.enqueue("run-window", payload).id


def find_demo_digest(pgq: PgQueue, demo: Demo) -> Row | None:
    """The window's digest, or None while there is none."""
    return find_digest(pgq, topic=str(demo.topic_id), window_end=demo.window_end)


def check_job(pgq: PgQueue, demo: Demo, job_id: int) -> None:
    """Raise PgQueueError, with the window's own reason, when the job has ended in vain."""
    state = pgq.get_job(job_id).state
    if state not in _OVER:
        return
    with desk(pgq) as at:
        row = at.first("window_error", topic_id=demo.topic_id, window_end=demo.window_end)
    reason = row["error"] if row is not None and row["error"] else "no reason was noted"
    raise PgQueueError(f"the window was not done: job {job_id} has {state}: {reason}")


def _topic(pgq: PgQueue, name: str) -> Demo:
    # Without a delay, so that the job is due at once.
    stored = add_topic(pgq, name, keywords=SAMPLE_KEYWORDS, delay=0)
    with desk(pgq) as at:
        (row,) = at.rows("now")
    cron = Cron(cron_of(WINDOW_TIMES))
    end = cron.previous(row["now"])
    return Demo(stored.id, name, cron.previous(end), end)


def _make_due(pgq: PgQueue, demo: Demo) -> None:
    with desk(pgq) as at:
        at.rows("set_schedule_back", schedule=demo.schedule, next_run_at=demo.window_end)

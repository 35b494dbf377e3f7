"""From windows to their rows and jobs: payload, time, and what the overlap policy makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pgqueue.db.run import Statement, Steps, array_of
from pgqueue.job import Json, storable_json
from pgqueue.schedule.windows import Window

Sql = Mapping[str, str]


class Overlap(StrEnum):
    """What becomes of a window that is due while an earlier one is still under way."""

    QUEUE = "queue"
    """It waits; they run in order, one at a time."""
    SKIP = "skip"
    """It is left out, and stays visible as skipped."""
    CANCEL_RUNNING = "cancel-running"
    """The earlier one is cancelled, and this one runs when it has ended."""
    ALLOW = "allow"
    """They run beside each other."""


class Mode(StrEnum):
    """How a window came to be; stands in its row and in the payload."""

    WINDOW = "window"
    SINCE_LAST_RUN = "since-last-run"
    BACKFILL = "backfill"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class JobTemplate:
    """What the jobs of a schedule have in common, and how its windows go together."""

    id: int
    task: str
    queue: str
    payload: Mapping[str, Json]
    delay: float
    max_attempts: int
    window_parameters: Sequence[str]
    overlap: str
    priority: int
    tags: Sequence[str]
    tenant: str | None
    timeout: float | None
    jitter: float
    after_id: int | None

    @property
    def is_held(self) -> bool:
        """Whether its windows are inserted held, for `release_windows` to let go."""
        return self.overlap != Overlap.ALLOW or self.after_id is not None

    @property
    def params(self) -> dict[str, Any]:
        """The columns of a job, as statements name them."""
        return {
            "task": self.task,
            "queue": self.queue,
            "max_attempts": self.max_attempts,
            "priority": self.priority,
            "tags": list(self.tags),
            "tenant": self.tenant,
            "timeout": self.timeout,
        }

    def payload_of(self, window: Window, mode: str) -> str:
        """The payload of that window's job, as JSON text."""
        span = {
            "window_start": window.start.isoformat(),
            "window_end": window.end.isoformat(),
            "mode": str(mode),
        }
        filled = {name: value for name, value in span.items() if name in self.window_parameters}
        return storable_json({**self.payload, **filled})

    def run_at(self, window: Window) -> datetime:
        """When its job is due: the window's end, the delay, and a share of the jitter.

        The share follows from schedule and window, so all tickers agree on it.
        """
        share = random.Random(f"{self.id}:{window.start.isoformat()}").random()  # noqa: S311 - no secret
        return window.end + timedelta(seconds=self.delay + self.jitter * share)


@dataclass(frozen=True, slots=True)
class Filled:
    """What was inserted; `job_id` is the newest job."""

    windows: int = 0
    jobs: int = 0
    job_id: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Windows of one schedule that are to be inserted, oldest first; which of them are left out."""

    template: JobTemplate
    windows: Sequence[Window]
    skipped: Sequence[bool] = ()


def insert_windows(
    sql: Sql, shares: Sequence[Share], mode: Mode = Mode.WINDOW, *, backfill_id: int | None = None
) -> Steps[dict[int, Filled]]:
    """Insert the windows that do not exist yet, and a job for each that is not left out.

    Returns what it inserted by the id of the schedule.
    """
    entries = [entry for share in shares for entry in _entries(share, mode)]
    if not entries:
        return {}
    params: dict[str, Any] = {name: [entry[name] for entry in entries] for name in entries[0]}
    if backfill_id is not None:
        params |= {"held": [True] * len(entries), "may_start": [False] * len(entries)}
    params |= {"mode": str(mode), "backfill_id": backfill_id}
    rows = yield Statement(sql["insert_windows"], params)
    return {schedule_id: Filled(*counts) for schedule_id, *counts in rows}


def _entries(share: Share, mode: Mode) -> Iterator[dict[str, Any]]:
    template = share.template
    skipped = share.skipped or [False] * len(share.windows)
    may_start = template.after_id is None
    for window, is_skipped in zip(share.windows, skipped, strict=True):
        yield {
            **template.params,
            # As one literal: unnest flattens nested arrays.
            "tags": array_of(template.tags),
            "schedule_ids": template.id,
            "held": template.is_held,
            "may_start": may_start and not is_skipped,
            "window_starts": window.start,
            "window_ends": window.end,
            "payloads": template.payload_of(window, mode),
            "run_ats": template.run_at(window),
            "skipped": is_skipped,
        }
        may_start = may_start and is_skipped


def share_of_due(sql: Sql, template: JobTemplate, windows: Sequence[Window]) -> Steps[Share]:
    """What is due, with what the overlap policy leaves out."""
    skipped = yield from _skipped(sql, template, len(windows))
    return Share(template, windows, skipped)


def _skipped(sql: Sql, template: JobTemplate, count: int) -> Steps[list[bool]]:
    if template.overlap == Overlap.CANCEL_RUNNING:
        return [place < count - 1 for place in range(count)]
    if template.overlap != Overlap.SKIP:
        return []
    ((live,),) = yield Statement(sql["count_live_windows"], {"schedule_id": template.id})
    return [bool(live) or place > 0 for place in range(count)]


def put_window(sql: Sql, template: JobTemplate, window: Window, mode: Mode) -> Steps[int | None]:
    """Insert the window with its job, or give the one that begins there a new end and a new job.

    Returns the job's id; None while the job that it has lives.
    """
    place = {"schedule_id": template.id, "window_start": window.start, "mode": str(mode)}
    rows = yield Statement(sql["find_window_at"], place)
    if rows:
        return (yield from renew_window(sql, template, rows[0][0], window, mode))
    filled = yield from insert_windows(sql, [Share(template, [window])], mode)
    return filled[template.id].job_id if filled else None


def renew_window(
    sql: Sql, template: JobTemplate, window_id: int, window: Window, mode: str
) -> Steps[int | None]:
    """Give a stored window another job; returns its id, None while the one it has lives."""
    params = {
        **template.params,
        "id": window_id,
        "window_end": window.end,
        "held": template.is_held,
        "payload": template.payload_of(window, mode),
    }
    renewed = yield Statement(sql["renew_window"], params)
    return renewed[0][0] if renewed else None

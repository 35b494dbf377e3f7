"""The pipeline's tasks, for any app: they stand on the front door like everybody's.

Cheap to import, also without the extra `pipeline`: what needs it is imported when a job runs.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime

from pgqueue import Job, PgQueue, Retry
from pgqueue.errors import ConfigError, Fail
from pgqueue.pipeline.extra import needs_pipeline

WINDOW_TIMEOUT = 600
"""Seconds a whole window may take."""

Mode = Literal["window", "catchup", "since-last-run", "backfill"]


def add_tasks(pgq: PgQueue) -> None:
    """Register the pipeline's tasks; raises ConfigError when a name is taken."""

    @pgq.task(
        name="run-window",
        queue="pipeline",
        retry=Retry(attempts=3, base=30),
        timeout=WINDOW_TIMEOUT,
    )
    def run_window(
        *,
        user_id: int,
        topic_id: int,
        window_start: AwareDatetime,
        window_end: AwareDatetime,
        job: Job,
        mode: Mode = "window",
    ) -> dict[str, Any]:
        """Ingest, embed, cluster, digest: a topic's window becomes a digest."""
        with needs_pipeline("the task run-window"):
            from pgqueue.pipeline import run_window as pipeline  # noqa: PLC0415 - the extra's
        try:
            asked = pipeline.Asked(
                user_id=user_id,
                topic_id=topic_id,
                window_start=window_start,
                window_end=window_end,
                mode=mode,
            )
        except ConfigError as error:
            raise Fail(str(error)) from None
        return pipeline.run_window(asked, pgq.settings, job.transaction, lambda: job.cancelled)

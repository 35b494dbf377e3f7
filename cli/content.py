"""What the commands of the content pipeline share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgqueue import PgQueue


def pipeline_app() -> PgQueue:
    """The built-in app: topics enqueue its task, whatever PGQUEUE_APP says."""
    from pgqueue.pipeline.app import pgq

    return pgq

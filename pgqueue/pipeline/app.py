"""The built-in app: the content pipeline as a guest of the queue."""

from __future__ import annotations

from pgqueue import PgQueue
from pgqueue.pipeline.tasks import add_tasks

pgq = PgQueue()
add_tasks(pgq)

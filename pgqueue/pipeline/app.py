"""The built-in app: the content pipeline as a guest of the queue.

Without the extra `pipeline` it has no tasks: a worker must not claim what it cannot run.
"""

from __future__ import annotations

from pgqueue import PgQueue
from pgqueue.pipeline.extra import is_installed
from pgqueue.pipeline.tasks import add_tasks

pgq = PgQueue()
if is_installed():
    add_tasks(pgq)

"""The built-in app: the content pipeline as a guest of the queue."""

from __future__ import annotations

from pgqueue import PgQueue

pgq = PgQueue()

"""The private Postgres: a server of our own for whoever has none.

It listens on one Unix socket, lets in its owner alone (peer authentication), is shared by all
processes of that owner, and stops when the last of them leaves.
"""

from __future__ import annotations

from pgqueue.embedded.places import default_directory
from pgqueue.embedded.server import EmbeddedServer, start, stop

__all__ = ["EmbeddedServer", "default_directory", "start", "stop"]

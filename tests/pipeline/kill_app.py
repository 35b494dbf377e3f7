"""The built-in app with a trap: it kills its own process at the point that KILL_AT names.

Named as an app for `pgq worker --app kill_app:pgq`. Every event of the pipeline is first written
to the file EVENTS, so that what was done before the kill can be counted.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from pgqueue.events import Event, subscribe
from pgqueue.pipeline.app import pgq
from pgqueue.pipeline.events import StageCommitted, StageStarted, StageWritten

__all__ = ["pgq"]

_KINDS = {StageStarted: "started", StageWritten: "written", StageCommitted: "committed"}


def _trap(event: Event) -> None:
    kind = _KINDS.get(type(event))
    if kind is None:
        return
    point = f"{kind}:{event.stage}"  # type: ignore[attr-defined] # all three kinds have a stage
    with Path(os.environ["EVENTS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(point) + "\n")
    if point == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)


subscribe(_trap)

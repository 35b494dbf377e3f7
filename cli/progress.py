"""What a person sees while the pipeline runs: from events, on stderr, moving on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pgqueue.events import Event, WorkerStopping, subscribe
from pgqueue.pipeline.events import SourceRead, StageCommitted, StageStarted

if TYPE_CHECKING:
    from rich.status import Status

_DOING = {
    "ingest": "reading sources",
    "embed": "embedding",
    "cluster": "finding stories",
    "digest": "writing the digest",
}
_DONE: Mapping[str, Callable[[Mapping[str, int]], str]] = {
    "ingest": lambda n: f"{n['polled']} sources read, {n['failed']} failed, {n['items']} items",
    "embed": lambda n: f"{n['embedded']} items embedded",
    "cluster": lambda n: f"{n['stories']} stories, {n['copies']} copies",
    "digest": lambda n: f"{n['stories']} stories told",
}
IDLE = "nothing left to do"


class Progress:
    """A line per committed stage and per failed source; on a terminal what goes on now, too."""

    def __init__(self) -> None:
        from rich.console import Console

        self.interrupted = False
        """True once a worker stopped for another reason than having nothing left to do."""
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        self._unsubscribe = subscribe(self._on_event)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unsubscribe()
        if self._status is not None:
            self._status.stop()

    def say(self, doing: str) -> None:
        """What goes on now."""
        if self._status is not None:
            self._status.update(doing)

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _on_event(self, event: Event) -> None:
        match event:
            case StageStarted(stage=stage):
                self.say(_DOING[stage])
            case SourceRead(error=str(error), name=name):
                self.line(f"source failed: {name}: {error}")
            case StageCommitted():
                self._committed(event)
            case WorkerStopping(reason=reason):
                self.interrupted = self.interrupted or reason != IDLE

    def _committed(self, event: Any) -> None:
        done = _DONE[event.stage](event.counts)
        self.line(f"{event.stage:<8}{done} ({event.milliseconds / 1000:.1f} s)")

"""What one worker may differ in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What one worker may differ in; None takes the setting."""

    queues: tuple[str, ...] = ()
    concurrency: int | None = None
    shutdown_timeout: float | None = None
    burst: bool = False
    version: str = ""
    health_host: str = "127.0.0.1"
    health_port: int | None = None

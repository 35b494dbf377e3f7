"""Where a sync handler runs: in a thread of the worker, or in a process of its own."""

from __future__ import annotations

import inspect
import multiprocessing
from collections.abc import Callable
from typing import Any

from pgqueue.errors import ConfigError

ISOLATIONS = ("thread", "process")


def checked_isolation(task: str, function: Callable[..., Any], isolation: str | None) -> str | None:
    """The isolation; None for an async handler. Raises ConfigError where it is not possible."""
    if isolation is not None and isolation not in ISOLATIONS:
        raise ConfigError(
            f"task {task!r}: isolation {isolation!r} is not valid: {', '.join(ISOLATIONS)}"
        )
    if inspect.iscoroutinefunction(function):
        if isolation is None:
            return None
        raise ConfigError(
            f"task {task!r}: an async function runs in the event loop: "
            f'isolation="{isolation}" is for sync functions'
        )
    if isolation == "process" and not _stands_in_module(function):
        raise ConfigError(
            f'task {task!r}: isolation="process" needs a function at the top level of a module, '
            "where the other process finds it"
        )
    return isolation or "thread"


def checked_memory(task: str, isolation: str | None, limit: int | None) -> int | None:
    """The memory limit in bytes; raises ConfigError where it cannot hold."""
    if limit is None:
        return None
    if isolation != "process":
        raise ConfigError(f'task {task!r}: memory_limit needs isolation="process"')
    if isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0:
        raise ConfigError(f"task {task!r}: memory_limit {limit!r} is not valid: bytes, above 0")
    return limit


def _stands_in_module(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__qualname__", "")
    return name.isidentifier()


def refuse_in_a_child_that_starts() -> None:
    """Raise ConfigError where a child process imports the program that starts workers.

    A program without a guard would start another worker in each of them, and no child would ever
    come to its handler.
    """
    # What multiprocessing itself asks before it lets a child start processes.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            'a child process for isolation="process" imports the program that runs the worker: '
            'put what starts it under `if __name__ == "__main__":`'
        )

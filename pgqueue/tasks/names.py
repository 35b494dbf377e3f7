"""What tasks, queues and events may be called."""

from __future__ import annotations

import re

from pgqueue.errors import ConfigError

_QUEUE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_TASK = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


def checked_queue(name: str) -> str:
    """The name as it is; raises ConfigError unless it is a queue name."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise ConfigError(
            f"queue name {name!r} is not valid: 1 to 100 letters, digits and the signs _ . : -"
        )
    return name


def checked_task(name: str) -> str:
    """The name as it is; raises ConfigError unless it is a task name."""
    if not isinstance(name, str) or not _TASK.fullmatch(name):
        raise ConfigError(
            f"task name {name!r} is not valid: 1 to 200 letters, digits and the signs _ . : -"
        )
    return name


def checked_event(name: str) -> str:
    """The name as it is; raises ConfigError unless it is an event's name."""
    if not isinstance(name, str) or not _TASK.fullmatch(name):
        raise ConfigError(
            f"event name {name!r} is not valid: 1 to 200 letters, digits and the signs _ . : -"
        )
    return name


def task_name_of(function_name: str) -> str:
    """The default name of a function's task: dashes for underscores."""
    return function_name.strip("_").replace("_", "-")

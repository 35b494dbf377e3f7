"""The tasks of one app, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgqueue.errors import ConfigError, TaskUnknown
from pgqueue.tasks.options import OPTION_NAMES, GivenOptions
from pgqueue.tasks.task import Enqueuing, Task


class Registry:
    """Tasks by name; a name is taken once."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any]] = {}

    def add(self, task: Task[Any]) -> None:
        """Raises ConfigError when another function has the name."""
        other = self._tasks.get(task.name)
        if other is not None and other.function is not task.function:
            raise ConfigError(
                f"two tasks are named {task.name!r}: {_place(other)} and {_place(task)}; "
                "give one of them @task(name=…)"
            )
        self._check_limits(task)
        self._tasks[task.name] = task

    def _check_limits(self, task: Task[Any]) -> None:
        """One limit has one rule, whichever tasks are under it."""
        for other in self._tasks.values():
            for known in other.limits.definitions:
                for given in task.limits.definitions:
                    if other.name != task.name and known.name == given.name and known != given:
                        raise ConfigError(
                            f"limit {given.name!r} has one rule in task {other.name!r} and another "
                            f"in task {task.name!r}: declare it once and use it in both"
                        )

    def get(self, name: str) -> Task[Any]:
        """Raises TaskUnknown. Older spellings are understood: `run_window`, `SYNC_RSS`."""
        if not isinstance(name, str):
            raise TaskUnknown(str(name), self.names())
        task = self._tasks.get(name) or self._tasks.get(name.lower().replace("_", "-"))
        if task is None:
            raise TaskUnknown(name, self.names())
        return task

    def using(self, name: str, options: GivenOptions) -> Enqueuing:
        """The task of this name with options; raises TaskUnknown, and ConfigError for options."""
        task = self.get(name)
        arguments = sorted((options.keys() - OPTION_NAMES) & task.signature.names)
        if arguments:
            raise ConfigError(
                f"{arguments[0]!r} is an argument of task {name!r}, no option: arguments go into "
                f"the payload, enqueue({name!r}, {{{arguments[0]!r}: …}})"
            )
        return task.using(**options)

    def names(self) -> list[str]:
        return sorted(self._tasks)

    def __iter__(self) -> Iterator[Task[Any]]:
        return iter(self._tasks.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tasks


def _place(task: Task[Any]) -> str:
    return f"{task.function.__module__}.{task.function.__qualname__}"

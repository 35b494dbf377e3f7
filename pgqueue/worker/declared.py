"""What the tasks of an app declare of limits, as the database keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pgqueue.db.run import Steps
from pgqueue.engine.limits import Rule, declare
from pgqueue.tasks.limits import TaskLimits, pattern_of
from pgqueue.tasks.task import Task


def declare_limits(sql: Mapping[str, str], tasks: Iterable[Task[Any]]) -> Steps[None]:
    """Store the limits of these tasks, so that whoever enqueues goes by them, in any language.

    For a connection in autocommit. The same again changes nothing; what was declared last holds.
    """
    known = list(tasks)
    rules = {rule.name: rule for task in known for rule in _rules(task.limits)}
    names = {task.name: task.limits.names for task in known}
    return declare(sql, sorted(rules.values(), key=lambda rule: rule.name), names)


def _rules(limits: TaskLimits) -> Iterator[Rule]:
    for limit in limits.limits:
        pattern = pattern_of(limit.name)
        yield Rule(limit.name, pattern, limit.running, limit.starts, limit.seconds)
    if limits.order is not None:
        name = limits.order.name
        yield Rule(name, pattern_of(name), running=1, on_failure=limits.order.on_failure)

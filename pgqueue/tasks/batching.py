"""Batch handlers: one call for up to so many jobs; what such a function may look like."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from typing_extensions import is_typeddict

from pgqueue.errors import ConfigError
from pgqueue.job import Job
from pgqueue.tasks.payload import Signature

MOST = 1_000
"""Jobs in one call at most."""

LONGEST_WAIT = 60.0
"""Seconds that a job may wait for its batch to fill: it is claimed already."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How many jobs one call takes at most, and how many seconds it waits for them."""

    size: int
    max_wait: float


@dataclass(frozen=True, slots=True)
class BatchSignature(Signature):
    """What a batch handler takes: a list of payloads, of jobs, or both."""

    items_parameter: str | None = None
    jobs_parameter: str | None = None


def checked_batching(
    task: str, batch: Any, max_wait: Any, isolation: str | None
) -> Batching | None:
    """None for a handler of single jobs; raises ConfigError."""
    if batch is None:
        if max_wait is not None:
            raise ConfigError(f"task {task!r}: max_wait needs batch")
        return None
    if type(batch) is not int or not 1 <= batch <= MOST:
        raise ConfigError(f"task {task!r}: batch {batch!r} is not valid: 1 to {MOST:,}")
    seconds = 0.0 if max_wait is None else max_wait
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= LONGEST_WAIT:
        raise ConfigError(
            f"task {task!r}: max_wait {max_wait!r} is not valid: 0 to {LONGEST_WAIT:g} seconds"
        )
    if isolation == "process":
        raise ConfigError(f'task {task!r}: a batch handler cannot have isolation="process"')
    return Batching(batch, float(seconds))


def batch_signature_of(task: str, function: Callable[..., Any]) -> BatchSignature:
    """Read a batch handler's signature; raises ConfigError when it is none."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError as error:
        raise ConfigError(
            f"task {task!r}: an annotation cannot be resolved ({error}): import it at run time"
        ) from None
    taken: dict[str, str] = {}
    item: Any = dict[str, Any]
    for name, parameter in parameters.items():
        kind = _element(task, name, parameter.annotation)
        role = "jobs" if kind is Job else "payloads"
        if role in taken:
            raise ConfigError(f"task {task!r}: two parameters are lists of {role}")
        taken[role] = name
        if role == "payloads":
            item = kind
    if not taken:
        raise ConfigError(f"task {task!r}: a batch handler takes a list of payloads or list[Job]")
    return BatchSignature(
        task=task,
        adapter=_adapter(task, item),
        positional=(),
        names=_names(item),
        job_parameter=None,
        connection_parameter=None,
        takes_async_connection=False,
        open_ended=get_origin(item) is dict or item is dict,
        items_parameter=taken.get("payloads"),
        jobs_parameter=taken.get("jobs"),
    )


def _element(task: str, name: str, annotation: Any) -> Any:
    elements = get_args(annotation)
    if get_origin(annotation) is not list or len(elements) != 1:
        raise ConfigError(
            f"task {task!r}: parameter {name!r} of a batch handler must be a list, such as "
            "list[Item] of a payload type, or list[Job]"
        )
    (kind,) = elements
    if kind is not Job and not _is_object(kind):
        raise ConfigError(
            f"task {task!r}: parameter {name!r}: one job's payload is a pydantic model, a "
            "dataclass, a TypedDict or a dict"
        )
    return kind


def _is_object(kind: Any) -> bool:
    if is_typeddict(kind) or kind is dict or get_origin(kind) in (dict, Mapping):
        return True
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))


def _names(item: Any) -> frozenset[str]:
    if isinstance(item, type) and issubclass(item, BaseModel):
        return frozenset(item.model_fields)
    if is_typeddict(item):
        return frozenset(item.__annotations__)
    return frozenset(one.name for one in fields(item)) if is_dataclass(item) else frozenset()


def _adapter(task: str, item: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(item)
    except PydanticUserError as error:
        raise ConfigError(f"task {task!r}: {str(error).splitlines()[0]}") from None

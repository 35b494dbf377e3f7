"""What a handler returned, made storable."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from pgqueue.engine.claim import ClaimedJob
from pgqueue.errors import Verdict
from pgqueue.job import Ended, NotStorable, State, storable_json

RESULT_LIMIT = 1_000_000
"""Bytes of JSON that a result may have."""

DEEPEST = 300
"""Levels that the estimate looks into; what holds itself has more."""

_SHORT = frozenset({int, float, bool, type(None)})


def completed(job: ClaimedJob, value: Any) -> Ended:
    """The ending of a handler that returned; raises what it returned if that is a verdict.

    Raises NotStorable for a value that jsonb cannot hold, or that has more than RESULT_LIMIT.
    """
    if value is None:
        return Ended(job.id, job.lease, State.COMPLETED)
    return Ended(job.id, job.lease, State.COMPLETED, json_of(value))


def json_of(value: Any) -> str:
    """The value as JSON text that can be stored; raises as `completed` does."""
    if isinstance(value, Verdict):
        raise value
    # Made JSON, 100 MB would block the event loop for seconds, from whatever thread: what makes it
    # holds the interpreter until it is done.
    if not _is_plain(value):
        value = _made_plain(value)
        _is_plain(value)
    return storable_json(value, limit=RESULT_LIMIT)


def _made_plain(value: Any) -> Any:
    try:
        return to_jsonable_python(value, inf_nan_mode="constants")
    # ValueError: pydantic's word for an object that holds itself.
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        if isawaitable(value):
            raise NotStorable(f"not JSON but a {type(value).__name__}: await it") from None
        raise NotStorable(f"not JSON: {error}") from None


def _is_plain(value: Any) -> bool:
    """Whether `value` is made of what JSON has; raises NotStorable where it has too much of it."""
    size, is_plain = least_size(value, RESULT_LIMIT)
    if size > RESULT_LIMIT:
        raise NotStorable(f"more than {RESULT_LIMIT:,} bytes, which is the most")
    return is_plain


def least_size(value: Any, limit: int) -> tuple[int, bool]:  # noqa: C901 - calls would cost more
    """Bytes that `value` has at least as JSON, and whether it is plain; what is not counts as 0.

    Looks no further when it is beyond `limit`: that is at `limit` / 2 elements at the latest.
    """
    size = 0
    is_plain = True
    level = [value]
    for _ in range(DEEPEST):
        inside: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                size += len(item)
            elif kind is dict:
                size += 4 * len(item)  # two quotes, a colon, and a comma or brace
                if size > limit:
                    return size, is_plain
                try:
                    size += len("".join(item))
                except TypeError:
                    is_plain = False
                inside += item.values()
            elif kind is list or kind is tuple:
                size += 2 * len(item)
                if size > limit:
                    return size, is_plain
                inside += item
            elif kind not in _SHORT:
                is_plain = False
        if size > limit or not inside:
            return size, is_plain
        level = inside
    return size, False


def said_by(error: BaseException) -> str:
    """The message of an exception; of one whose own `__str__` raises, that it does."""
    try:
        return str(error)
    except Exception as own:  # noqa: BLE001 - a handler's class may do anything
        return f"<no message: {type(error).__qualname__}.__str__ raised {type(own).__qualname__}>"

"""What a handler returned, made storable."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from pgqueue.engine.claim import ClaimedJob
from pgqueue.errors import Verdict
from pgqueue.job import Ended, NotStorable, State, storable_json

RESULT_LIMIT = 1_000_000
"""Bytes of JSON that a result may have."""


def completed(job: ClaimedJob, value: Any) -> Ended:
    """The ending of a handler that returned; raises what it returned if that is a verdict.

    Raises NotStorable for a value that jsonb cannot hold.
    """
    if isinstance(value, Verdict):
        raise value
    if value is None:
        return Ended(job.id, job.lease, State.COMPLETED)
    try:
        plain = to_jsonable_python(value, inf_nan_mode="constants")
    # ValueError: pydantic's word for an object that holds itself.
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotStorable(f"not JSON: {error}") from None
    result = storable_json(plain, limit=RESULT_LIMIT)
    return Ended(job.id, job.lease, State.COMPLETED, result)


def said_by(error: BaseException) -> str:
    """The message of an exception; of one whose own `__str__` raises, that it does."""
    try:
        return str(error)
    except Exception as own:  # noqa: BLE001 - a handler's class may do anything
        return f"<no message: {type(error).__qualname__}.__str__ raised {type(own).__qualname__}>"

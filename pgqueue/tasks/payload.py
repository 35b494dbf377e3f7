"""Arguments in, JSON out, and back: a function's signature as a pydantic type."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NotRequired

import psycopg
from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from pgqueue.errors import ConfigError, PayloadInvalid
from pgqueue.job import Job, Json, NotStorable, checked_json, storable_json
from pgqueue.tasks.parents import Parents, kind_of

PAYLOAD_LIMIT = 1_000_000
"""Bytes of JSON a payload may have; enqueue_v1 says the same. Store large things elsewhere."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes: its payload's type, and the names of what is injected."""

    task: str
    adapter: TypeAdapter[dict[str, Any]]
    positional: tuple[str, ...]
    names: frozenset[str]
    job_parameter: str | None
    connection_parameter: str | None
    takes_async_connection: bool
    open_ended: bool = False
    """Whether the payload may have fields that no parameter names."""
    parents_parameter: str | None = None
    parents_kind: Any = None

    def payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Json]:
        """The arguments as a JSON object; raises PayloadInvalid."""
        return self.payload_and_text(args, kwargs)[0]

    def payload_and_text(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Json], str]:
        """`payload`, and the same as the JSON text that is stored."""
        given = self._named(args, kwargs)
        try:
            valid = self.adapter.validator.validate_python(given)
        except ValidationError as error:
            raise PayloadInvalid(self.task, _problems(error)) from None
        except ValueError as error:  # pydantic's word for an object that holds itself
            raise PayloadInvalid(self.task, [("payload", str(error))]) from None
        return self._stored(valid)

    def payload_of_json(self, payload: Mapping[str, Any]) -> dict[str, Json]:
        """The payload as it is stored, of one that came as JSON; raises PayloadInvalid.

        A strict model takes a time as text from JSON, but not from Python. Values of Python are
        taken as well, as `payload` takes them.
        """
        try:
            text = storable_json(payload)
        except NotStorable:
            return self.payload((), payload)
        try:
            valid = self.adapter.validate_json(text)
        except ValidationError as error:
            with suppress(PayloadInvalid):
                return self.payload((), payload)
            raise PayloadInvalid(self.task, _problems(error)) from None
        return self._stored(valid)[0]

    def _stored(self, valid: dict[str, Any]) -> tuple[dict[str, Json], str]:
        try:
            # By alias and without computed fields: what arguments() can read again.
            payload: dict[str, Json] = self.adapter.serializer.to_python(
                valid, mode="json", by_alias=True, round_trip=True
            )
            text = _storable_text(payload, valid)
        # ValueError: pydantic's word for an object that holds itself.
        except (PydanticSerializationError, NotStorable, ValueError) as error:
            raise PayloadInvalid(self.task, [("payload", str(error))]) from None
        return payload, text

    def payload_texts(self, given: Iterable[Mapping[str, Any]]) -> list[bytes]:
        """`payload` of each of many, as the JSON text that is stored; raises PayloadInvalid."""
        # The adapter's own methods take three times as long, for options that they were not given.
        validate, dump = self.adapter.validator.validate_python, self.adapter.serializer.to_json
        valid: list[Any] = []
        texts: list[bytes] = []
        try:
            # Each is written before the next is asked for: that may be the same dict, changed.
            for one in given:
                value = validate(one)
                valid.append(value)
                texts.append(dump(value, by_alias=True, round_trip=True))
            _check_storable_texts(texts, valid)
        except ValidationError as error:
            raise PayloadInvalid(self.task, _problems(error)) from None
        # ValueError: pydantic's word for an object that holds itself.
        except (PydanticSerializationError, NotStorable, ValueError) as error:
            raise PayloadInvalid(self.task, [("payload", str(error))]) from None
        return texts

    def arguments(self, payload: str) -> dict[str, Any]:
        """The keyword arguments of a stored payload, which is JSON; raises PayloadInvalid."""
        # The adapter's own method takes as long again, for options that it was not given.
        read = self.adapter.validator.validate_json
        try:
            # As JSON: a strict model takes a time as text from JSON, but not from Python.
            valid: dict[str, Any] = read(_without_infinity(payload))
        except ValidationError as error:
            raise PayloadInvalid(self.task, _problems(error)) from None
        # ValueError: a whole number of more digits than Python reads.
        except (NotStorable, ValueError) as error:
            raise PayloadInvalid(self.task, [("payload", str(error))]) from None
        return valid

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.positional):
            message = f"takes {len(self.positional)} positional arguments, got {len(args)}"
            raise PayloadInvalid(self.task, [("arguments", message)])
        named = dict(zip(self.positional, args, strict=False))
        for name in kwargs:
            if name in named:
                raise PayloadInvalid(self.task, [(name, "given twice")])
        return named | dict(kwargs)


def signature_of(task: str, function: Callable[..., Any]) -> Signature:
    """Read a handler's signature; raises ConfigError when a parameter cannot be understood."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError as error:
        raise ConfigError(
            f"task {task!r}: an annotation cannot be resolved ({error}): import it at run time"
        ) from None
    taken: dict[str, Any] = {}
    positional: list[str] = []
    injected: dict[str, str] = {}
    takes_async, open_ended = False, False
    for name, parameter in parameters.items():
        kind = parameter.annotation
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ConfigError(f"task {task!r}: parameter {name!r} must have a name in the payload")
        elif role := _injected_role(kind):
            if role in injected:
                raise ConfigError(f"task {task!r}: two parameters are annotated as a {role}")
            injected[role] = name
            takes_async = takes_async or _is(kind, psycopg.AsyncConnection)
        else:
            annotation = Any if kind is parameter.empty else kind
            has_default = parameter.default is not parameter.empty
            taken[name] = NotRequired[annotation] if has_default else annotation
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                positional.append(name)
    parents = injected.get("parents")
    return Signature(
        task=task,
        adapter=_adapter(task, taken, open_ended=open_ended),
        positional=tuple(positional),
        names=frozenset(taken),
        job_parameter=injected.get("job"),
        connection_parameter=injected.get("connection"),
        takes_async_connection=takes_async,
        open_ended=open_ended,
        parents_parameter=parents,
        parents_kind=None if parents is None else kind_of(parameters[parents].annotation),
    )


def connection_parameter(function: Callable[..., Any], wanted: type, what: str) -> str | None:
    """The parameter that is annotated as a connection of the `wanted` kind, if any.

    Raises ConfigError for one of the other kind: an async handler cannot use a sync connection.
    """
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError as error:
        raise ConfigError(
            f"{what}: an annotation cannot be resolved ({error}): import it at run time"
        ) from None
    except (TypeError, ValueError):  # a function of C has no signature
        return None
    for name, parameter in parameters.items():
        if _injected_role(parameter.annotation) != "connection":
            continue
        if not _is(parameter.annotation, wanted):
            raise ConfigError(f"{what}: this handler gives its steps a psycopg.{wanted.__name__}")
        return name
    return None


def _injected_role(annotation: Any) -> str | None:
    if _is(annotation, Job):
        return "job"
    if _is(annotation, psycopg.Connection) or _is(annotation, psycopg.AsyncConnection):
        return "connection"
    if _is(annotation, Parents):
        return "parents"
    return None


def _is(annotation: Any, kind: type) -> bool:
    # psycopg.Connection[dict] counts as psycopg.Connection.
    origin = getattr(annotation, "__origin__", annotation)
    return isinstance(origin, type) and issubclass(origin, kind)


def _adapter(task: str, taken: dict[str, Any], *, open_ended: bool) -> TypeAdapter[dict[str, Any]]:
    # A TypedDict, not a model: any parameter name will do, and what was not given stays not given,
    # so that the function's own default of the day is used.
    make: Any = TypedDict
    payload = make("Payload", taken)
    payload.__pydantic_config__ = ConfigDict(
        extra="allow" if open_ended else "forbid",
        arbitrary_types_allowed=False,
    )
    try:
        return TypeAdapter(payload)
    except PydanticSchemaGenerationError as error:
        raise ConfigError(f"task {task!r}: {str(error).splitlines()[0]}") from None


# jsonb holds 1e999, and writes it out; a float would read infinity. Of so many digits ten lie side
# by side where every thirtieth sign is read: that look costs a thirtieth of the exact one.
_MAY_BE_LONG = re.compile(r"\d{10}")
_FEWEST_DIGITS = 309
_MAY_BE_INFINITE = re.compile(rf"\d{{{_FEWEST_DIGITS}}}")


def _without_infinity(payload: str) -> str:
    if len(payload) < _FEWEST_DIGITS:
        return payload
    if _MAY_BE_LONG.search(payload[::30]) and _MAY_BE_INFINITE.search(payload):
        storable_json(json.loads(payload))
    return payload


def _check_storable_texts(texts: Sequence[bytes], valid: Sequence[Mapping[str, Any]]) -> None:
    # Three looks at all of them cost next to nothing, a look at each as much as writing it.
    joined = b"".join(texts)
    if b"\\u0000" in joined or len(joined) > PAYLOAD_LIMIT:
        for text in texts:
            checked_json(text.decode(), len(text), PAYLOAD_LIMIT)
    if b"null" in joined:
        for text, value in zip(texts, valid, strict=True):
            if b"null" in text:
                _check_finite(value)


def _storable_text(payload: Mapping[str, Json], valid: Mapping[str, Any]) -> str:
    # pydantic writes null for NaN and infinity, without a word.
    text = storable_json(payload, limit=PAYLOAD_LIMIT)
    if "null" in text:
        _check_finite(valid)
    return text


_SIMPLE = (str, int, float, type(None))


def _check_finite(valid: Mapping[str, Any]) -> None:
    if _holds_non_finite(valid):
        raise NotStorable("holds NaN or infinity, which JSON does not know")


def _holds_non_finite(value: Any) -> bool:
    if isinstance(value, _SIMPLE):
        return isinstance(value, float) and not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_holds_non_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_non_finite, value))
    if isinstance(value, BaseModel):
        return any(map(_holds_non_finite, value.__dict__.values()))
    if is_dataclass(value):
        return any(_holds_non_finite(getattr(value, one.name)) for one in fields(value))
    return False


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(str(part) for part in problem["loc"]) or "payload", problem["msg"])
        for problem in error.errors(include_url=False, include_input=False)
    ]

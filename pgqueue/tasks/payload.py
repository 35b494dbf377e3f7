"""Arguments in, JSON out, and back: a function's signature as a pydantic type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

import psycopg
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from pgqueue.errors import ConfigError, PayloadInvalid
from pgqueue.job import Job, Json, NotStorable, storable_json

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

    def payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Json]:
        """The arguments as a JSON object; raises PayloadInvalid."""
        given = self._named(args, kwargs)
        try:
            valid = self.adapter.validate_python(given)
            payload: dict[str, Json] = self.adapter.dump_python(valid, mode="json")
            storable_json(payload, limit=PAYLOAD_LIMIT)
        except ValidationError as error:
            raise PayloadInvalid(self.task, _problems(error)) from None
        # ValueError: pydantic's word for an object that holds itself.
        except (PydanticSerializationError, NotStorable, ValueError) as error:
            raise PayloadInvalid(self.task, [("payload", str(error))]) from None
        return payload

    def arguments(self, payload: Mapping[str, Json]) -> dict[str, Any]:
        """The keyword arguments of a stored payload; raises PayloadInvalid."""
        try:
            return self.adapter.validate_python(payload)
        except ValidationError as error:
            raise PayloadInvalid(self.task, _problems(error)) from None

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
    fields: dict[str, Any] = {}
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
            fields[name] = NotRequired[annotation] if has_default else annotation
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                positional.append(name)
    return Signature(
        task=task,
        adapter=_adapter(task, fields, open_ended=open_ended),
        positional=tuple(positional),
        names=frozenset(fields),
        job_parameter=injected.get("job"),
        connection_parameter=injected.get("connection"),
        takes_async_connection=takes_async,
    )


def _injected_role(annotation: Any) -> str | None:
    if _is(annotation, Job):
        return "job"
    if _is(annotation, psycopg.Connection) or _is(annotation, psycopg.AsyncConnection):
        return "connection"
    return None


def _is(annotation: Any, kind: type) -> bool:
    # psycopg.Connection[dict] counts as psycopg.Connection.
    origin = getattr(annotation, "__origin__", annotation)
    return isinstance(origin, type) and issubclass(origin, kind)


def _adapter(task: str, fields: dict[str, Any], *, open_ended: bool) -> TypeAdapter[dict[str, Any]]:
    # A TypedDict, not a model: any parameter name will do, and what was not given stays not given,
    # so that the function's own default of the day is used.
    make: Any = TypedDict
    payload = make("Payload", fields)
    payload.__pydantic_config__ = ConfigDict(
        extra="allow" if open_ended else "forbid", arbitrary_types_allowed=False
    )
    try:
        return TypeAdapter(payload)
    except PydanticSchemaGenerationError as error:
        raise ConfigError(f"task {task!r}: {str(error).splitlines()[0]}") from None


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(str(part) for part in problem["loc"]) or "payload", problem["msg"])
        for problem in error.errors(include_url=False, include_input=False)
    ]

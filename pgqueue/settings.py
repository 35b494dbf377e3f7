"""The one place that reads the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgqueue.errors import ConfigError

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")


def checked_schema(schema: str) -> str:
    """The schema name as it is; raises ConfigError for anything but a plain name.

    30 characters at most: the names of partitions and of the content schema grow from it and must
    stay under Postgres' 63.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ConfigError(
            f"schema name {schema!r} is not valid: use letters, digits and _, 30 characters at most"
        )
    return schema


_DRIVER_PREFIXES = ("postgresql+psycopg://", "postgresql+psycopg_async://", "postgres+psycopg://")


def normalised_url(url: str) -> str:
    """A database URL or libpq string as libpq takes it.

    Accepts `postgres://`, `postgresql://`, `postgresql+psycopg://` and `key=value` strings; raises
    ConfigError for anything else. The password is never part of a message.
    """
    text = url.strip()
    for prefix in _DRIVER_PREFIXES:
        if text.startswith(prefix):
            text = "postgresql://" + text.removeprefix(prefix)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.startswith("postgresql+"):
        raise ConfigError(
            f"database URL starts with {scheme}://, and pgqueue works through psycopg 3: "
            "use postgresql://user@host/database"
        )
    if separator and scheme not in ("postgres", "postgresql"):
        raise ConfigError(
            f"database URL starts with {scheme}://, and pgqueue speaks to Postgres only: "
            "use postgresql://user@host/database"
        )
    try:
        conninfo_to_dict(text)
        return make_conninfo(text)
    except Exception:  # noqa: BLE001 - the driver's own message repeats the URL with its password
        raise ConfigError(
            "database URL cannot be read: use postgresql://user@host:port/database"
        ) from None


def described_target(conninfo: str) -> str:
    """Where a libpq string points to, for people: no password, no options."""
    parts = conninfo_to_dict(conninfo)
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    place = f"{host}:{parts['port']}" if parts.get("port") else str(host)
    return f"database {parts.get('dbname') or parts.get('user') or '(default)'!r} at {place}"


A_DAY = 86_400.0


class Settings(BaseSettings):
    """Everything that can be set from outside; times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="PGQUEUE_",
        # The later file wins: .env.local is a person's own.
        env_file=(".env", ".env.local"),
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    database_url: Annotated[
        str | None, Field(validation_alias=AliasChoices("PGQUEUE_DATABASE_URL", "DATABASE_URL"))
    ] = None
    schema_name: Annotated[str, Field(validation_alias="PGQUEUE_SCHEMA")] = "pgqueue"
    app: str | None = None
    heartbeat_interval: Annotated[float, Field(gt=0, le=A_DAY)] = 3.0
    heartbeat_timeout: Annotated[float, Field(gt=0, le=A_DAY)] = 15.0
    poll_interval: Annotated[float, Field(gt=0, le=A_DAY)] = 1.0
    notify: bool = True
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 10
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    shutdown_timeout: Annotated[float, Field(ge=0, le=A_DAY)] = 30.0
    stats_interval: Annotated[float, Field(ge=0, le=A_DAY)] = 60.0
    health_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    embedded_dir: Path | None = None
    fetch_allow: str = ""

    @field_validator("database_url")
    @classmethod
    def _normalised(cls, url: str | None) -> str | None:
        return normalised_url(url) if url else None

    @field_validator("schema_name")
    @classmethod
    def _plain(cls, schema: str) -> str:
        return checked_schema(schema)

    @property
    def channel(self) -> str | None:
        """Where workers are told of work; None when hints are off."""
        return self.schema_name if self.notify else None

    @property
    def beat_every(self) -> float:
        """Seconds between heartbeats; five fit into the timeout, so a late one loses nothing."""
        return min(self.heartbeat_interval, self.heartbeat_timeout / 5)


def read_settings(**overrides: Any) -> Settings:
    """The settings from environment and .env files; raises ConfigError naming each problem."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"settings are not valid: {problems}") from None


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    if name.isupper():
        return name
    return {"schema_name": "PGQUEUE_SCHEMA"}.get(name, f"PGQUEUE_{name.upper()}")

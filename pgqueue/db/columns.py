"""Kinds of columns that the tables share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, text
from sqlalchemy.types import TypeEngine

TIME = DateTime(timezone=True)


def required(name: str, kind: TypeEngine[Any], default: str | None = None) -> Column[Any]:
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default)


def identity() -> Column[int]:
    return Column("id", BigInteger, Identity(always=False), nullable=False)

"""The content pipeline's schema in SQLAlchemy Core; in the same Alembic history as the queue's."""

from __future__ import annotations

from sqlalchemy import MetaData


def content_metadata(schema: str) -> MetaData:
    """The tables of the content pipeline in the schema of that name."""
    return MetaData(schema=schema)

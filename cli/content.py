"""What the commands of the content pipeline share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgqueue import PgQueue


def pipeline_app() -> PgQueue:
    """The built-in app: topics enqueue its task, whatever PGQUEUE_APP says."""
    from pgqueue.pipeline.app import pgq

    return pgq


def ready_pipeline_app() -> PgQueue:
    """`pipeline_app`, connected to a database that this version can work with."""
    from pgqueue.db.version import check_version

    pgq = pipeline_app()
    with pgq.connection() as connection:
        check_version(connection, pgq.settings.schema_name)
    return pgq

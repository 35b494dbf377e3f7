"""Limits: named caps across the fleet, tenants' turns, strict order by key, full queues."""

from __future__ import annotations

import re
from pathlib import Path

from alembic import op

from pgqueue.db.upgrade import migration_text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(migration_text(__file__, "up", op.get_context().version_table_schema))


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.execute(migration_text(__file__, "down", schema))
    op.execute(_former_enqueue(schema))


def _former_enqueue(schema: str | None) -> str:
    """The definition of enqueue_v1 that this revision has replaced."""
    life = migration_text(str(Path(__file__).with_name("0003_life.py")), "up", schema)
    found = re.search(r"^create function \S+enqueue_v1\(.*?^\$body\$;$", life, re.M | re.S)
    assert found is not None  # noqa: S101 - a released migration is never changed
    return found[0]

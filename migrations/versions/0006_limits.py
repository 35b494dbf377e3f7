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
    for view in ("unknown_tasks", "stuck_jobs"):
        found = _former(rf"^create view \S+{view} as$.*?;$", schema)
        op.execute(found.replace("create view", "create or replace view", 1))
    op.execute(migration_text(__file__, "down", schema))
    op.execute(_former(r"^create function \S+enqueue_v1\(.*?^\$body\$;$", schema))


def _former(pattern: str, schema: str | None) -> str:
    """The definition that this revision has replaced."""
    life = migration_text(str(Path(__file__).with_name("0003_life.py")), "up", schema)
    found = re.search(pattern, life, re.M | re.S)
    assert found is not None  # noqa: S101 - a released migration is never changed
    return found[0]

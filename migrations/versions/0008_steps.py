"""Steps: what a handler keeps over its tries, and the events that jobs wait for."""

from __future__ import annotations

from alembic import op

from pgqueue.db.upgrade import migration_text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(migration_text(__file__, "up", op.get_context().version_table_schema))


def downgrade() -> None:
    op.execute(migration_text(__file__, "down", op.get_context().version_table_schema))

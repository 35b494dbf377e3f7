"""Time: what happens to windows that overlap, are missed, skipped, filled in or run again."""

from __future__ import annotations

from alembic import op

from pgqueue.db.upgrade import migration_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(migration_text(__file__, "up", op.get_context().version_table_schema))


def downgrade() -> None:
    op.execute(migration_text(__file__, "down", op.get_context().version_table_schema))

"""What the hot path pays for, made cheap."""

from __future__ import annotations

from alembic import op

from pgqueue.db.upgrade import migration_text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(migration_text(__file__, "up", op.get_context().version_table_schema))


def downgrade() -> None:
    op.execute(migration_text(__file__, "down", op.get_context().version_table_schema))

"""The content pipeline: topics, sources, items, stories, windows, digests."""

from __future__ import annotations

from alembic import op

from pgqueue.db.upgrade import migration_text
from pgqueue.sql import quoted_content_schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A schema of that name may have been there before us, with tables of somebody else.
_DROP_UNLESS_USED = """
do $$
begin
  drop schema {schema};
exception when dependent_objects_still_exist then
  null;
end
$$
"""


def upgrade() -> None:
    op.execute(f"create schema if not exists {_content()}")
    op.execute(migration_text(__file__, "up", op.get_context().version_table_schema))


def downgrade() -> None:
    op.execute(migration_text(__file__, "down", op.get_context().version_table_schema))
    op.execute(_DROP_UNLESS_USED.format(schema=_content()))


def _content() -> str:
    return quoted_content_schema(op.get_context().version_table_schema or "pgqueue")

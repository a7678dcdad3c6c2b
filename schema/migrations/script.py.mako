"""${message}.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

Frozen once released: import no models, write plain SQL. It must run beside programs of the previous
revision; if those may no longer use the database afterwards, raise queue.requires_revision here. Build
an index with CREATE INDEX CONCURRENTLY IF NOT EXISTS in `with op.get_context().autocommit_block():`;
what stands before it is committed with it, and must be such that it can be done again.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)


UPGRADE = """
"""

DOWNGRADE = """
"""

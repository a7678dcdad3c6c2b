"""Record with each attempt the ticket it was claimed by and when the order had entered the line.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)


UPGRADE = """
ALTER TABLE attempts
    ADD COLUMN seq bigint,
    ADD COLUMN queued_at timestamptz;

COMMENT ON COLUMN attempts.seq IS 'The ticket it was claimed by; null if made before revision 0002.';
COMMENT ON COLUMN attempts.queued_at IS
    'When the order had entered the line before this claim; null if made before revision 0002.';
"""

DOWNGRADE = """
ALTER TABLE attempts
    DROP COLUMN seq,
    DROP COLUMN queued_at
"""

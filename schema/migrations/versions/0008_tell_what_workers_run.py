"""Tell which handler each worker runs, and in which version of this project.

Revision ID: 0008
Revises: 0007

Workers of the previous revision leave both null.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)


UPGRADE = """
ALTER TABLE workers
    ADD COLUMN handler text,
    ADD COLUMN version text;

COMMENT ON COLUMN workers.handler IS
    'What it calls for an order; simulated if it only sleeps; null if from before revision 0008.';
COMMENT ON COLUMN workers.version IS
    'Its release of this project; null if from before revision 0008.';
"""

DOWNGRADE = """
ALTER TABLE workers
    DROP COLUMN handler,
    DROP COLUMN version
"""

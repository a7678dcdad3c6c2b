"""Keep with a batch's idempotency key what its ids were made from.

Revision ID: 0006
Revises: 0005

Programs of the previous revision find another order_hash with such a key than they expect, and refuse to
replay the batch: they would count on from its first id.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute("ALTER TABLE idempotency_keys DROP COLUMN seed")


UPGRADE = """
ALTER TABLE idempotency_keys
    ADD COLUMN seed bytea;

COMMENT ON COLUMN idempotency_keys.seed IS
    'Of a batch: what its ids are made from; null if made before revision 0006: they count on.';
"""

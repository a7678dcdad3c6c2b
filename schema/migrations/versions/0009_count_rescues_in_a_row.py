"""Count how many workers in a row died with an order, so that it runs alone after two.

Revision ID: 0009
Revises: 0008

Programs of the previous revision count no rescues, and claim an order that has to run alone beside others.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Committed before the index is built, and done again if that is broken off.
    op.execute(UPGRADE)
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_alone"
            " ON orders (seq) WHERE in_line AND rescues >= 2"
        )


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN rescues")


UPGRADE = """
ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS rescues integer;

COMMENT ON COLUMN orders.rescues IS
    'Workers in a row that died with it up to now; null: none. From 2 on it runs alone.';
"""

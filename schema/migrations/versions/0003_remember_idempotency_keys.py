"""Remember under which idempotency key an order was submitted.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys")


UPGRADE = """
CREATE TABLE idempotency_keys (
    idempotency_key text NOT NULL,
    order_id uuid NOT NULL,
    order_hash bytea NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (idempotency_key),
    CONSTRAINT idempotency_keys_key_has_1_to_255_characters
        CHECK (char_length(idempotency_key) BETWEEN 1 AND 255)
) WITH (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

COMMENT ON TABLE idempotency_keys IS 'The keys that clients gave their submissions, for a day at least.';
COMMENT ON COLUMN idempotency_keys.idempotency_key IS 'The client''s name for one submission.';
COMMENT ON COLUMN idempotency_keys.order_id IS
    'The order that it became. No foreign key: it would lock orders.';
COMMENT ON COLUMN idempotency_keys.order_hash IS
    'SHA-256 of the order as it was validated: the same key may not come with another.';
COMMENT ON COLUMN idempotency_keys.created_at IS 'When it was first used.';
"""

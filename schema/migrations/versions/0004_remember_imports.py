"""Remember how far files of orders were imported.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute("DROP TABLE imports")


UPGRADE = """
CREATE TABLE imports (
    sha256 bytea NOT NULL,
    path text NOT NULL,
    line bigint DEFAULT 0 NOT NULL,
    position bigint DEFAULT 0 NOT NULL,
    placed bigint DEFAULT 0 NOT NULL,
    rejected bigint DEFAULT 0 NOT NULL,
    rejected_bytes bigint DEFAULT 0 NOT NULL,
    started_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamptz,
    CONSTRAINT imports_pkey PRIMARY KEY (sha256)
);

COMMENT ON TABLE imports IS 'The files given to `orders import`: how far each was imported.';
COMMENT ON COLUMN imports.sha256 IS 'The hash of the whole file: what the file is called does not matter.';
COMMENT ON COLUMN imports.path IS 'Where it was.';
COMMENT ON COLUMN imports.line IS 'Lines done.';
COMMENT ON COLUMN imports.position IS 'Bytes done.';
COMMENT ON COLUMN imports.placed IS 'Orders placed.';
COMMENT ON COLUMN imports.rejected IS 'Entries that are no orders.';
COMMENT ON COLUMN imports.rejected_bytes IS 'How long the file of the rejected ones is.';
COMMENT ON COLUMN imports.started_at IS 'When it began.';
COMMENT ON COLUMN imports.finished_at IS 'When all of it was done.';
"""

"""Keep a tally of the orders, so that nobody has to count them.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NEW = "SELECT 1 AS n, status, created_at, started_at, finished_at FROM new_orders"
OLD = "SELECT -1 AS n, status, created_at, started_at, finished_at FROM old_orders"

TRIGGERS = {
    "orders_tally_insert": (
        "AFTER INSERT ON orders REFERENCING NEW TABLE AS new_orders",
        NEW,
        "arrivals, sum(n)",
    ),
    "orders_tally_update": (
        "AFTER UPDATE ON orders REFERENCING NEW TABLE AS new_orders OLD TABLE AS old_orders",
        f"{NEW} UNION ALL {OLD}",
        "completions, sum(n) FILTER (WHERE status = 'completed')",
    ),
    "orders_tally_delete": ("AFTER DELETE ON orders REFERENCING OLD TABLE AS old_orders", OLD, ""),
}
"""What each listens to, the rows that count, and what else it notes: a column and its value."""


def upgrade() -> None:
    op.execute(TABLES)
    for name, (listens, rows, note) in TRIGGERS.items():
        column, _, value = note.partition(", ")
        body = APPEND.format(
            rows=rows, column=f", {column}" if note else "", value=f", {value}" if note else ""
        )
        create_trigger(name, listens, body)
    create_trigger("orders_tally_truncate", "AFTER TRUNCATE ON orders", RESET)
    # The lock that the triggers took keeps writers out until all of this is committed.
    op.execute(COUNT)


def downgrade() -> None:
    for name in (*TRIGGERS, "orders_tally_truncate"):
        op.execute(f"DROP TRIGGER {name} ON orders")
        op.execute(f"DROP FUNCTION {name}()")
    op.execute("DROP TABLE tally, tally_changes, tally_marks")


def create_trigger(name: str, listens: str, body: str) -> None:
    (schema,) = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").one()
    op.execute(FUNCTION.format(name=name, body=body, schema=schema))
    # Or anybody could have it run for a table of their own. Firing it needs no permission.
    op.execute(f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC")
    op.execute(f"CREATE TRIGGER {name} {listens} FOR EACH STATEMENT EXECUTE FUNCTION {name}()")


TABLES = """
CREATE TABLE tally (
    only_row boolean DEFAULT true NOT NULL,
    floor bigint DEFAULT 0 NOT NULL,
    pending bigint DEFAULT 0 NOT NULL,
    processing bigint DEFAULT 0 NOT NULL,
    retrying bigint DEFAULT 0 NOT NULL,
    completed bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    seconds_to_completion numeric DEFAULT 0 NOT NULL,
    timed bigint DEFAULT 0 NOT NULL,
    seconds_in_slot numeric DEFAULT 0 NOT NULL,
    arrivals bigint DEFAULT 0 NOT NULL,
    completions bigint DEFAULT 0 NOT NULL,
    CONSTRAINT tally_pkey PRIMARY KEY (only_row),
    CONSTRAINT tally_has_only_one_row
        CHECK (only_row)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 50
);

COMMENT ON TABLE tally IS 'How many orders there are, without what stands in tally_changes from `floor` on.';
COMMENT ON COLUMN tally.only_row IS 'Keeps it one row.';
COMMENT ON COLUMN tally.floor IS 'The changes of older transactions are all in it: nobody looks for them.';
COMMENT ON COLUMN tally.pending IS 'Orders in line.';
COMMENT ON COLUMN tally.processing IS 'Orders being worked on.';
COMMENT ON COLUMN tally.retrying IS 'Orders waiting for their retry_at.';
COMMENT ON COLUMN tally.completed IS 'Completed orders.';
COMMENT ON COLUMN tally.failed IS 'Failed orders.';
COMMENT ON COLUMN tally.cancelled IS 'Cancelled orders.';
COMMENT ON COLUMN tally.seconds_to_completion IS 'Of all completed orders, from created_at to finished_at.';
COMMENT ON COLUMN tally.timed IS 'Completed orders that have a started_at.';
COMMENT ON COLUMN tally.seconds_in_slot IS 'Of all those, from started_at to finished_at.';
COMMENT ON COLUMN tally.arrivals IS 'Orders ever inserted since the tally is kept.';
COMMENT ON COLUMN tally.completions IS 'Orders ever completed since the tally is kept.';

INSERT INTO tally DEFAULT VALUES;

CREATE TABLE tally_changes (
    xid bigint DEFAULT pg_current_xact_id()::text::bigint NOT NULL,
    pending bigint,
    processing bigint,
    retrying bigint,
    completed bigint,
    failed bigint,
    cancelled bigint,
    seconds_to_completion numeric,
    timed bigint,
    seconds_in_slot numeric,
    arrivals bigint,
    completions bigint
) WITH (
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 0
);

-- Without a key, it could not be folded in a database whose tables are all published.
ALTER TABLE tally_changes REPLICA IDENTITY FULL;

CREATE INDEX tally_changes_age ON tally_changes (xid);

COMMENT ON TABLE tally_changes IS
    'What statements changed of the tally: a row each, null where nothing, until it is folded.';
COMMENT ON COLUMN tally_changes.xid IS 'The transaction that made the change.';
COMMENT ON COLUMN tally_changes.pending IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.processing IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.retrying IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.completed IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.failed IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.cancelled IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.seconds_to_completion IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.timed IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.seconds_in_slot IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.arrivals IS 'As in tally, the difference.';
COMMENT ON COLUMN tally_changes.completions IS 'As in tally, the difference.';

CREATE TABLE tally_marks (
    at timestamptz DEFAULT clock_timestamp() NOT NULL,
    arrivals bigint NOT NULL,
    completions bigint NOT NULL
);

ALTER TABLE tally_marks REPLICA IDENTITY FULL;

COMMENT ON TABLE tally_marks IS 'What the tally was in the last two minutes: where the rates come from.';
COMMENT ON COLUMN tally_marks.at IS 'When.';
COMMENT ON COLUMN tally_marks.arrivals IS 'As in tally.';
COMMENT ON COLUMN tally_marks.completions IS 'As in tally.';
"""

SUMS = """
    sum(n) FILTER (WHERE status = 'pending'),
    sum(n) FILTER (WHERE status = 'processing'),
    sum(n) FILTER (WHERE status = 'retrying'),
    sum(n) FILTER (WHERE status = 'completed'),
    sum(n) FILTER (WHERE status = 'failed'),
    sum(n) FILTER (WHERE status = 'cancelled'),
    sum(n * EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'),
    sum(n) FILTER (WHERE status = 'completed' AND started_at IS NOT NULL),
    sum(n * EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed')
"""

COLUMNS = """
    pending, processing, retrying, completed, failed, cancelled,
    seconds_to_completion, timed, seconds_in_slot
"""

APPEND = f"""
    INSERT INTO tally_changes ({COLUMNS}{{column}})
    SELECT {SUMS}{{value}}
    FROM ({{rows}}) AS changed
    HAVING count(*) > 0;
"""

RESET = """
    DELETE FROM tally;
    TRUNCATE tally_changes;
    DELETE FROM tally_marks;
    INSERT INTO tally DEFAULT VALUES;
"""

# Whoever may write orders by hand need not be allowed to write the tally.
FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp
AS $$
BEGIN
    {body}
    RETURN NULL;
END
$$
"""

COUNT = f"""
INSERT INTO tally_changes ({COLUMNS})
SELECT {SUMS}
FROM (SELECT 1 AS n, status, created_at, started_at, finished_at FROM orders) AS existing
HAVING count(*) > 0
"""

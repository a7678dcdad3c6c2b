"""Tell what each worker runs, and keep orders that are in a final state there.

Workers of the previous revision leave handler and version null.

The function that keeps the tally knows how many orders an UPDATE takes out of each state, and judges by
that: a trigger for each row, with a WHEN that never calls anything, costs up to three percent of an exchange.

Revision ID: 0008
Revises: 0007
"""

from alembic import op
from sqlalchemy import Connection

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(UPGRADE)
    make_functions(op.get_bind())


def downgrade() -> None:
    make_functions(op.get_bind(), final=False)
    op.execute(DOWNGRADE)


def make_functions(connection: Connection, *, final: bool = True) -> None:
    """Make the function for the schema that `orders` is in; also called when it was renamed since."""
    schema = str(connection.exec_driver_sql(SCHEMA).scalar())
    function = FUNCTION.format(
        schema=schema, allowed=ALLOWED if final else "", refusal=REFUSAL if final else ""
    )
    connection.exec_driver_sql(function, execution_options={"no_parameters": True})


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

SCHEMA = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'orders'::regclass::oid"

# No table is locked: statements under way go on with the function of before, which counts the same.
FUNCTION = """
CREATE OR REPLACE FUNCTION {schema}.orders_tally_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    INSERT INTO {schema}.tally_changes (
        pending, processing, retrying, completed, failed, cancelled,
        seconds_to_completion, timed, seconds_in_slot, completions
    )
    SELECT
        sum(n) FILTER (WHERE status = 'pending'),
        sum(n) FILTER (WHERE status = 'processing'),
        sum(n) FILTER (WHERE status = 'retrying'),
        sum(n) FILTER (WHERE status = 'completed'),
        sum(n) FILTER (WHERE status = 'failed'),
        sum(n) FILTER (WHERE status = 'cancelled'),
        sum(n * EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'),
        sum(n) FILTER (WHERE status = 'completed' AND started_at IS NOT NULL),
        sum(n * EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed'),
        sum(n) FILTER (WHERE status = 'completed')
    FROM (
        SELECT 1 AS n, status, created_at, started_at, finished_at FROM new_orders
        UNION ALL
        SELECT -1 AS n, status, created_at, started_at, finished_at FROM old_orders
    ) AS changed
    HAVING count(*) > 0{allowed};
    {refusal}
    RETURN NULL;
END
$body$
"""

# The sums are null where a state is neither left nor reached. A failed order may go back in line.
ALLOWED = """
       AND LEAST(
           sum(n) FILTER (WHERE status = 'completed'),
           sum(n) FILTER (WHERE status = 'cancelled'),
           LEAST(sum(n) FILTER (WHERE status = 'failed'), 0)
               + GREATEST(sum(n) FILTER (WHERE status = 'pending'), 0)
       ) >= 0"""

REFUSAL = """
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM new_orders) THEN
            RAISE EXCEPTION
                'completed and cancelled orders stay what they are, and failed ones only go back in line'
                USING ERRCODE = 'check_violation',
                      SCHEMA = TG_TABLE_SCHEMA,
                      TABLE = TG_TABLE_NAME,
                      CONSTRAINT = 'orders_final_states_are_final',
                      HINT = 'Leave out what is finished (AND finished_at IS NULL). If work must be done'
                             ' again, place a new order, or redrive the failed one: orders redrive ID.';
        END IF;
    END IF;
"""

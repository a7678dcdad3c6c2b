"""Name all that the tally's trigger functions use: nothing is looked for where others may create.

They run as their owner. A search path with a schema in which another role may create let that role's
operators match better than those of pg_catalog, and run as the owner.

Revision ID: 0007
Revises: 0006
"""

from alembic import op
from sqlalchemy import Connection

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    make_functions(op.get_bind())


def downgrade() -> None:
    make_functions(op.get_bind(), named=False)


def make_functions(connection: Connection, *, named: bool = True) -> None:
    """Make the functions for the schema that `orders` is in; also called when it was renamed since."""
    schema = str(connection.exec_driver_sql(SCHEMA).scalar())
    path, tables = ("pg_catalog", f"{schema}.") if named else (schema, "")
    append = [
        APPEND.format(tables=tables, column=column, value=value, rows=rows)
        for column, value, rows in (
            (", arrivals", ", sum(n)", NEW),
            (", completions", ", sum(n) FILTER (WHERE status = 'completed')", f"{NEW} UNION ALL {OLD}"),
            ("", "", OLD),
        )
    ]
    bodies = zip(NAMES, (*append, RESET.format(tables=tables)), strict=True)
    for name, body in bodies:
        function = FUNCTION.format(schema=schema, name=name, path=path, body=body)
        connection.exec_driver_sql(function, execution_options={"no_parameters": True})


SCHEMA = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'orders'::regclass::oid"

NAMES = ("orders_tally_insert", "orders_tally_update", "orders_tally_delete", "orders_tally_truncate")

NEW = "SELECT 1 AS n, status, created_at, started_at, finished_at FROM new_orders"
OLD = "SELECT -1 AS n, status, created_at, started_at, finished_at FROM old_orders"

APPEND = """
    INSERT INTO {tables}tally_changes (
        pending, processing, retrying, completed, failed, cancelled,
        seconds_to_completion, timed, seconds_in_slot{column}
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
        sum(n * EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed'){value}
    FROM ({rows}) AS changed
    HAVING count(*) > 0;
"""

RESET = """
    DELETE FROM {tables}tally;
    TRUNCATE {tables}tally_changes;
    DELETE FROM {tables}tally_marks;
    INSERT INTO {tables}tally DEFAULT VALUES;
"""

# No table is locked: statements under way go on with the functions of before, which count the same.
FUNCTION = """
CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {path}, pg_temp
AS $body$
BEGIN
    {body}
    RETURN NULL;
END
$body$
"""

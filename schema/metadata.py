"""What the descriptions of the tables share."""

from sqlalchemy import MetaData

metadata = MetaData()
"""All tables that were described: import the modules that do so first."""

# The defaults wait for a fifth of the table to change; at ten million rows that is for ever.
VACUUMED_OFTEN = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_vacuum_cost_delay": "0",
}

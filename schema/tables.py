"""The queue's tables as they are after the newest migration; `schema.ledgers` has those around them.

`alembic check` and a test hold code and migrations together. Names here are public: people write SQL
against them. Statements live beside the functions that run them, as plain SQL; this module is where to look
a column up.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.order import RESCUES_TOGETHER
from schema.states import ATTEMPTS_CEILING, Outcome, Status

metadata = MetaData()
"""All tables; `schema.ledgers` adds those around the queue."""

NOW = text("clock_timestamp()")
TIME = DateTime(timezone=True)

# The defaults wait for a fifth of the table to change; at ten million rows that is for ever.
VACUUMED_OFTEN = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_vacuum_cost_delay": "0",
}


def required(name: str, *of: Any, **options: Any) -> Column[Any]:
    """Return a column that holds a value in every row."""
    return Column(name, *of, nullable=False, **options)


def _in_range(*times: str) -> str:
    # An infinite time, or one past year 9999, would make Python refuse the row that a claim returns.
    named = ", ".join(times)
    return f"LEAST({named}) >= '1900-01-01 00:00:00+00' AND GREATEST({named}) < '3000-01-01 00:00:00+00'"


def _one_of(column: str, values: type[Status] | type[Outcome]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


orders = Table(
    "orders",
    metadata,
    required("order_id", Uuid, comment="The order's name. Ours are UUID version 7."),
    required(
        "seq",
        BigInteger,
        Identity(),
        comment="The ticket: the place in line. Drawn at insert; a redrive draws a new one.",
    ),
    required("user_id", Text, comment="Who ordered, 1 to 255 characters."),
    required("item_ids", ARRAY(Text), comment="What was ordered, 1 to 1,000 ids, in order."),
    required("total_amount", Numeric(14, 2), comment="The order's total, not negative."),
    required(
        "status",
        Text,
        server_default=Status.PENDING,
        comment="pending (in line), processing, retrying (waits for retry_at), completed, failed, cancelled.",
    ),
    required(
        "attempt",
        Integer,
        server_default=text("0"),
        comment="Claims so far. It only ever grows: with worker_id it is the fence of a claim.",
    ),
    Column(
        "attempt_limit",
        Integer,
        comment="No claim goes beyond this attempt. Set by the first claim; release and redrive raise it.",
    ),
    Column("worker_id", Text, comment="Who works on it; in a final state, who did last."),
    required("created_at", TIME, server_default=NOW, comment="When it was inserted."),
    required("queued_at", TIME, server_default=NOW, comment="When it last entered the line."),
    Column("started_at", TIME, comment="When the present (or last) attempt was claimed."),
    Column("finished_at", TIME, comment="When it reached its final state."),
    Column("retry_at", TIME, comment="When a retrying order enters the line again."),
    Column("cancel_requested_at", TIME, comment="When a cancel was asked for while it was being worked on."),
    Column("last_error", Text, comment="Why its last unsuccessful attempt ended."),
    required(
        "in_line",
        Boolean,
        Computed("status = 'pending'", persisted=True),
        comment="Whether it can be claimed. Indexed instead of status, so that completing changes no index.",
    ),
    Column(
        "rescues",
        Integer,
        comment="Workers in a row that died with it up to now; null: none. From 2 on it runs alone.",
    ),
    PrimaryKeyConstraint("order_id", name="orders_pkey"),
    CheckConstraint(_one_of("status", Status), name="orders_status_is_known"),
    CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name="orders_user_id_has_1_to_255_characters"),
    CheckConstraint(
        "array_ndims(item_ids) = 1 AND cardinality(item_ids) BETWEEN 1 AND 1000"
        " AND array_position(item_ids, NULL) IS NULL",
        name="orders_item_ids_has_1_to_1000_items",
    ),
    # Not only `>= 0`: for PostgreSQL NaN is greater than every number.
    CheckConstraint("total_amount BETWEEN 0 AND 999999999999.99", name="orders_total_amount_is_not_negative"),
    CheckConstraint("seq BETWEEN 1 AND 9000000000000000000", name="orders_seq_is_in_range"),
    CheckConstraint(
        _in_range("created_at", "queued_at", "started_at", "finished_at", "retry_at", "cancel_requested_at"),
        name="orders_times_are_in_range",
    ),
    CheckConstraint(
        f"attempt BETWEEN 0 AND {ATTEMPTS_CEILING} AND attempt_limit >= 0", name="orders_attempt_is_in_range"
    ),
    CheckConstraint(
        "status <> 'pending' OR (worker_id IS NULL AND started_at IS NULL AND finished_at IS NULL"
        " AND retry_at IS NULL AND cancel_requested_at IS NULL"
        f" AND attempt < LEAST(attempt_limit, {ATTEMPTS_CEILING}))",
        name="orders_pending_is_free_with_an_attempt_left",
    ),
    CheckConstraint(
        "status <> 'retrying' OR (worker_id IS NULL AND started_at IS NULL AND finished_at IS NULL"
        " AND retry_at IS NOT NULL AND cancel_requested_at IS NULL"
        f" AND attempt < LEAST(attempt_limit, {ATTEMPTS_CEILING}))",
        name="orders_retrying_is_free_with_a_time_to_return",
    ),
    CheckConstraint(
        "status <> 'processing' OR (worker_id IS NOT NULL AND started_at IS NOT NULL"
        " AND finished_at IS NULL AND retry_at IS NULL)",
        name="orders_processing_has_a_worker_and_a_start",
    ),
    CheckConstraint(
        "status NOT IN ('completed', 'failed', 'cancelled')"
        " OR (finished_at IS NOT NULL AND retry_at IS NULL)",
        name="orders_final_has_an_end",
    ),
    # Claiming and completing write every row twice more. The free half of each page keeps the
    # completing version on the page of the claiming one (a HOT update, no index touched), also while
    # somebody's open snapshot keeps the old versions from being pruned.
    comment="The queue: one row an order, kept after it is done.",
    postgresql_with={"fillfactor": "50", **VACUUMED_OFTEN},
)

Index("orders_line", orders.c.seq, postgresql_where=orders.c.in_line)
Index("orders_returned", orders.c.seq, postgresql_where=text("in_line AND attempt > 0"))
Index("orders_alone", orders.c.seq, postgresql_where=text(f"in_line AND rescues >= {RESCUES_TOGETHER}"))
# Not `WHERE status = 'retrying'`: a column in an index's predicate costs every completion its HOT update.
Index("orders_due", orders.c.retry_at, postgresql_where=orders.c.retry_at.is_not(None))
Index("orders_started", orders.c.started_at, postgresql_where=orders.c.started_at.is_not(None))

attempts = Table(
    "attempts",
    metadata,
    required("order_id", Uuid, comment="Whose attempt. No foreign key: it would lock orders."),
    required("attempt", Integer, comment="Which attempt, from 1."),
    Column("worker_id", Text, comment="Who made it."),
    Column("started_at", TIME, comment="When it was claimed."),
    required("ended_at", TIME, server_default=NOW, comment="When its end was recorded."),
    required(
        "outcome",
        Text,
        comment="raised, timed_out, rejected, released (not spent), rescued (worker died), cancelled.",
    ),
    Column("error", Text, comment="What went wrong, as the handler or the rescue put it."),
    Column("seq", BigInteger, comment="The ticket it was claimed by; null if made before revision 0002."),
    Column(
        "queued_at",
        TIME,
        comment="When the order had entered the line before this claim; null if made before revision 0002.",
    ),
    PrimaryKeyConstraint("order_id", "attempt", name="attempts_pkey"),
    CheckConstraint(_one_of("outcome", Outcome), name="attempts_outcome_is_known"),
    comment="One row for each attempt that did not complete its order.",
)

workers = Table(
    "workers",
    metadata,
    required("worker_id", Text, comment="Unique to one start of one process."),
    required("host", Text, server_default="", comment="Where it runs."),
    required("pid", Integer, server_default=text("0"), comment="Its process id there."),
    required("slots", Integer, server_default=text("1"), comment="Orders it works on at once."),
    required("started_at", TIME, server_default=NOW, comment="When it began."),
    required("heartbeat_at", TIME, server_default=NOW, comment="When it last beat."),
    required(
        "lease_seconds",
        Double,
        server_default=text("10"),
        comment="How long after a heartbeat it counts as alive.",
    ),
    Column(
        "oldest_claim_at",
        TIME,
        comment="No order that it holds was claimed before this time. Where a rescue begins to read.",
    ),
    Column(
        "session_key",
        BigInteger,
        comment="The advisory lock that its heartbeat session holds; null if it can't (behind a pooler).",
    ),
    Column("session_lost_at", TIME, comment="Since when that lock has been seen free."),
    Column("dead_at", TIME, comment="When it was declared dead, or left. Final for this id."),
    Column("swept_at", TIME, comment="When, being dead, it was found to hold no order any more."),
    Column(
        "handler",
        Text,
        comment="What it calls for an order; simulated if it only sleeps; null if from before revision 0008.",
    ),
    Column("version", Text, comment="Its release of this project; null if from before revision 0008."),
    PrimaryKeyConstraint("worker_id", name="workers_pkey"),
    CheckConstraint("slots >= 0", name="workers_slots_are_not_negative"),
    CheckConstraint("lease_seconds BETWEEN 0 AND 86400", name="workers_lease_is_in_range"),
    CheckConstraint(
        _in_range("started_at", "heartbeat_at", "oldest_claim_at", "session_lost_at", "dead_at", "swept_at"),
        name="workers_times_are_in_range",
    ),
    comment="The worker processes, living and lately dead.",
    postgresql_with={"fillfactor": "50", "autovacuum_vacuum_threshold": "50"},
)

queue = Table(
    "queue",
    metadata,
    required("only_row", Boolean, server_default=text("true"), comment="Keeps it one row."),
    Column("paused_at", TIME, comment="Since when nothing new is claimed; null while claims are made."),
    required(
        "requires_revision",
        Text,
        server_default="0001",
        comment="The oldest schema revision whose programs may still use this database.",
    ),
    PrimaryKeyConstraint("only_row", name="queue_pkey"),
    CheckConstraint("only_row", name="queue_has_only_one_row"),
    comment="The switch that every worker obeys, and what the schema asks of its programs.",
)

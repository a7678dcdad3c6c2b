"""The tables around the queue: what was submitted and imported before, and the tally of the orders.

As in `schema.tables`: migrations make them, names are public, and this is where to look a column up.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from schema.tables import NOW, TIME, VACUUMED_OFTEN, metadata, required

_ZERO = text("0")

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    required("idempotency_key", Text, comment="The client's name for one submission."),
    required("order_id", Uuid, comment="The order that it became. No foreign key: it would lock orders."),
    required(
        "order_hash",
        LargeBinary,
        comment="SHA-256 of the order as it was validated: the same key may not come with another.",
    ),
    required("created_at", TIME, server_default=NOW, comment="When it was first used."),
    Column(
        "seed",
        LargeBinary,
        comment="Of a batch: what its ids are made from; null if made before revision 0006: they count on.",
    ),
    PrimaryKeyConstraint("idempotency_key", name="idempotency_keys_pkey"),
    CheckConstraint(
        "char_length(idempotency_key) BETWEEN 1 AND 255", name="idempotency_keys_key_has_1_to_255_characters"
    ),
    comment="The keys that clients gave their submissions, for a day at least.",
    postgresql_with=VACUUMED_OFTEN,
)
Index("idempotency_keys_age", idempotency_keys.c.created_at)

imports = Table(
    "imports",
    metadata,
    required(
        "sha256", LargeBinary, comment="The hash of the whole file: what the file is called does not matter."
    ),
    required("path", Text, comment="Where it was."),
    required("line", BigInteger, server_default=_ZERO, comment="Lines done."),
    required("position", BigInteger, server_default=_ZERO, comment="Bytes done."),
    required("placed", BigInteger, server_default=_ZERO, comment="Orders placed."),
    required("rejected", BigInteger, server_default=_ZERO, comment="Entries that are no orders."),
    required(
        "rejected_bytes",
        BigInteger,
        server_default=_ZERO,
        comment="How long the file of the rejected ones is.",
    ),
    required("started_at", TIME, server_default=NOW, comment="When it began."),
    Column("finished_at", TIME, comment="When all of it was done."),
    PrimaryKeyConstraint("sha256", name="imports_pkey"),
    comment="The files given to `orders import`: how far each was imported.",
)

_TALLIED = {
    "pending": (BigInteger, "Orders in line."),
    "processing": (BigInteger, "Orders being worked on."),
    "retrying": (BigInteger, "Orders waiting for their retry_at."),
    "completed": (BigInteger, "Completed orders."),
    "failed": (BigInteger, "Failed orders."),
    "cancelled": (BigInteger, "Cancelled orders."),
    "seconds_to_completion": (Numeric, "Of all completed orders, from created_at to finished_at."),
    "timed": (BigInteger, "Completed orders that have a started_at."),
    "seconds_in_slot": (Numeric, "Of all those, from started_at to finished_at."),
    "arrivals": (BigInteger, "Orders ever inserted since the tally is kept."),
    "completions": (BigInteger, "Orders ever completed since the tally is kept."),
}

tally = Table(
    "tally",
    metadata,
    required("only_row", Boolean, server_default=text("true"), comment="Keeps it one row."),
    required(
        "floor",
        BigInteger,
        server_default=_ZERO,
        comment="The changes of older transactions are all in it: nobody looks for them.",
    ),
    *(required(name, of, server_default=_ZERO, comment=comment) for name, (of, comment) in _TALLIED.items()),
    PrimaryKeyConstraint("only_row", name="tally_pkey"),
    CheckConstraint("only_row", name="tally_has_only_one_row"),
    comment="How many orders there are, without what stands in tally_changes from `floor` on.",
    postgresql_with={"fillfactor": "50", "autovacuum_vacuum_threshold": "50"},
)

tally_changes = Table(
    "tally_changes",
    metadata,
    required(
        "xid",
        BigInteger,
        server_default=text("pg_current_xact_id()::text::bigint"),
        comment="The transaction that made the change.",
    ),
    *(Column(name, of, comment="As in tally, the difference.") for name, (of, _) in _TALLIED.items()),
    comment="What statements changed of the tally: a row each, null where nothing, until it is folded.",
    postgresql_with={
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_cost_delay": "0",
    },
)
Index("tally_changes_age", tally_changes.c.xid)

tally_marks = Table(
    "tally_marks",
    metadata,
    required("at", TIME, server_default=NOW, comment="When."),
    required("arrivals", BigInteger, comment="As in tally."),
    required("completions", BigInteger, comment="As in tally."),
    comment="What the tally was in the last two minutes: where the rates come from.",
)

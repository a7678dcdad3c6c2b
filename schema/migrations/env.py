"""What alembic runs: every migration in one transaction, under one lock, with timeouts.

However many processes migrate at once, one does the work and the others find it done. Everything that may
have to be waited for is asked for again and again, with nothing held in between: a session that waits for
the lock in a transaction would be in the way of CREATE INDEX CONCURRENTLY, and a migration that waits for a
table has everybody else wait behind it. After `LOCK_SECONDS` of that it fails whole.
"""

import math
import time
from contextlib import ExitStack

from alembic import context
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from schema import ledgers, revision, tables  # noqa: F401 - they describe the tables
from schema.embedded import locate
from schema.migrate import LOCK_KEY, STATEMENT_SECONDS, engine, is_direct
from schema.runtime import settings
from schema.tables import metadata

LOCK_SECONDS = 30
"""For how long a migration tries to get a table that somebody uses."""

TRY_MILLISECONDS = 400
"""How long one try may take, and so the programs that wait behind it."""

PAUSE_SECONDS = 0.2

# SET LOCAL, because that works behind a pooler too.
LIMITS = f"""
SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s';
SET LOCAL lock_timeout = '{TRY_MILLISECONDS}ms';
SET LOCAL idle_in_transaction_session_timeout = 0
"""

LOCK_NOT_AVAILABLE = "55P03"
"""The SQLSTATE of a statement that did not get a lock in time."""

SESSION_LOCK = f"SELECT pg_try_advisory_lock({LOCK_KEY})"
"""Held until the session ends: an index is built outside of any transaction."""

POOLED_LOCK = f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})"

INVALID = """
SELECT indexrelid::regclass::text
FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid
  AND relname = ANY (%s)
  AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('orders')::oid)
"""


def run() -> None:
    url = context.config.attributes.get("url") or locate.resolve(settings.DATABASE_URL.read())
    way = engine(url)
    # In each transaction, also in one that begins after an index was built.
    event.listen(way, "begin", lambda connection: connection.exec_driver_sql(LIMITS))
    with way.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        direct = is_direct(connection)
        lock = SESSION_LOCK if direct else POOLED_LOCK
        give_up_at = math.inf
        while True:
            try:
                with ExitStack() as held:
                    # Behind a pooler no session is ours for long: a transaction of its own keeps the lock.
                    keeper = connection if direct else held.enter_context(way.begin())
                    held.enter_context(context.begin_transaction())
                    if keeper.exec_driver_sql(lock).scalar():
                        give_up_at = min(give_up_at, time.monotonic() + LOCK_SECONDS)
                        rebuild_indexes(connection)
                        context.run_migrations()
                        rename_in_functions(connection)
                        return
            except OperationalError as error:
                if (
                    getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE
                    or time.monotonic() > give_up_at
                ):
                    raise
            time.sleep(PAUSE_SECONDS)


def rebuild_indexes(connection: Connection) -> None:
    """Build what a CREATE INDEX CONCURRENTLY of ours has left invalid, because it was broken off."""
    ours = [str(index.name) for table in metadata.tables.values() for index in table.indexes]
    if invalid := connection.exec_driver_sql(INVALID, (ours,)).scalars().all():
        with context.get_context().autocommit_block():
            for name in invalid:
                connection.exec_driver_sql(
                    f"REINDEX INDEX CONCURRENTLY {name}", execution_options={"no_parameters": True}
                )


def rename_in_functions(connection: Connection) -> None:
    """Make the functions anew that name a schema by the name that it had before."""
    if not connection.exec_driver_sql(revision.RENAMED).scalar():
        return
    newest_first = context.script.iterate_revisions(context.get_context().get_current_heads(), "base")
    for each in reversed(list(newest_first)):
        if make := getattr(each.module, "make_functions", None):
            make(connection)


run()

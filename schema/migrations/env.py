"""What alembic runs: every migration in one transaction, under one lock, with timeouts.

However many processes migrate at once, one does the work and the others find it done. A migration
waits at most `LOCK_SECONDS` for a table that somebody uses, and then fails whole.
"""

from alembic import context
from sqlalchemy import text

from schema import ledgers, tables  # noqa: F401 - they describe the tables
from schema.embedded import locate
from schema.migrate import LOCK_KEY, STATEMENT_SECONDS, engine
from schema.runtime import settings
from schema.tables import metadata

LOCK_SECONDS = 30


def run() -> None:
    url = context.config.attributes.get("url") or locate.resolve(settings.DATABASE_URL.read())
    with engine(url).connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            # Only now: it would also cut short the wait for another process that migrates.
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            context.run_migrations()


run()

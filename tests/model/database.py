"""A real database whose clock stands still until the machine moves it, and the sessions that work in it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import conninfo

from schema.queue import tally
from schema.runtime.connection import Connection
from tests.model.tables import TABLES, Attempt, Entry, Order, Switch, Worker

START = datetime(2026, 1, 1, tzinfo=UTC)

# What the statements of the product ask for the time is found first on the search path, and answers what the
# machine says: so the model can foretell every time to the microsecond. What they set for a transaction that
# stands still (set_config) would go by the real clock, and is left out.
SET_UP = """
CREATE SCHEMA clock;
CREATE TABLE clock.reading (now timestamptz, server_started_at timestamptz);
INSERT INTO clock.reading DEFAULT VALUES;
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT now FROM clock.reading';
CREATE FUNCTION clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT now FROM clock.reading';
CREATE FUNCTION clock.set_config(text, text, boolean) RETURNS text LANGUAGE sql
    AS 'SELECT $2';
CREATE FUNCTION clock.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT server_started_at FROM clock.reading';
ALTER TABLE orders
    ALTER created_at SET DEFAULT clock.clock_timestamp(),
    ALTER queued_at SET DEFAULT clock.clock_timestamp();
ALTER TABLE attempts
    ALTER ended_at SET DEFAULT clock.clock_timestamp();
ALTER TABLE workers
    ALTER started_at SET DEFAULT clock.clock_timestamp(),
    ALTER heartbeat_at SET DEFAULT clock.clock_timestamp();
ALTER TABLE workers
    ADD shows_session boolean GENERATED ALWAYS AS (session_key IS NOT NULL) STORED;
CREATE TABLE ledger (order_id uuid NOT NULL, attempt integer NOT NULL);
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database());
END $$
"""

EMPTY = """
SET client_min_messages = warning;
TRUNCATE orders, attempts, workers, ledger RESTART IDENTITY;
INSERT INTO queue DEFAULT VALUES ON CONFLICT (only_row) DO UPDATE SET paused_at = NULL
"""

COUNT = """
SELECT count(*) FILTER (WHERE status = 'pending'),
       count(*) FILTER (WHERE status = 'processing'),
       count(*) FILTER (WHERE status = 'retrying'),
       count(*) FILTER (WHERE status = 'completed'),
       count(*) FILTER (WHERE status = 'failed'),
       count(*) FILTER (WHERE status = 'cancelled'),
       COALESCE(sum(EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'), 0),
       count(started_at) FILTER (WHERE status = 'completed'),
       COALESCE(sum(EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed'), 0)
FROM orders
"""

KINDS: tuple[type[Any], ...] = (Order, Attempt, Worker, Switch, Entry)
SESSIONS = ("one", "two")


class RealQueue:
    """One connection for each session of the machine, and one that looks at what is committed."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(SET_UP)
        self.sessions = {name: Connection.open(url, name=name) for name in SESSIONS}
        for session in self.sessions.values():
            session.execute("SET lock_timeout = '300ms'")
        self._observer = Connection.open(url, name="observer")

    def empty(self) -> None:
        for session in self.sessions.values():
            disconnect(session)
        self._observer.execute(EMPTY)

    def set_clock(self, now: datetime, *, server_started_at: datetime) -> None:
        self._observer.execute(
            "UPDATE clock.reading SET now = %s, server_started_at = %s", (now, server_started_at)
        )

    def committed(self) -> dict[type[Any], list[Any]]:
        """Return the rows of all tables as anybody else sees them."""
        with self._observer.pipeline():
            found = {
                kind: self._observer.cursor().execute(f"SELECT {', '.join(kind._fields)} FROM {TABLES[kind]}")
                for kind in KINDS
            }
        return {kind: [kind(*row) for row in cursor] for kind, cursor in found.items()}

    def tallied(self) -> tuple[object, ...]:
        """Return the sums that the tally has."""
        now = tally.read(self._observer)
        return *now.counts.values(), now.seconds_to_completion, now.timed, now.seconds_in_slot

    def counted(self) -> tuple[object, ...]:
        """Return the same sums, made by reading all orders."""
        return self._observer.execute(COUNT).fetchone() or ()

    def close(self) -> None:
        for connection in (*self.sessions.values(), self._observer):
            connection.close()


def disconnect(session: Connection) -> None:
    """Do what the server does when a client is gone."""
    session.execute("ROLLBACK")
    session.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def real_queue(server_url: str, template: str) -> Iterator[RealQueue]:
    """Yield the queue in a database of its own, a copy of the migrated `template`."""
    name = f"orders_model_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        real = RealQueue(conninfo.make_conninfo(server_url, dbname=name))
        try:
            yield real
        finally:
            real.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

"""Databases for tests, each as if it were freshly migrated.

A database is some 300 files, and to make one takes longer than most tests. So one that a test has given
back is emptied for another, unless the test has altered the tables themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
from psycopg import conninfo

from schema import migrate
from tests.pooler import Pooler

_SCHEMA = """
SELECT md5(string_agg(object, '' ORDER BY object))
FROM (
    SELECT (to_jsonb(pg_class) - '{relfilenode, relpages, reltuples, relallvisible, relallfrozen}'::text[]
                               - '{relfrozenxid, relminmxid}'::text[])::text
    FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT pg_attribute::text FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT pg_attrdef::text FROM pg_attrdef WHERE oid >= 16384
    UNION ALL SELECT pg_constraint::text FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT pg_index::text FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT pg_namespace::text FROM pg_namespace WHERE oid >= 16384
    UNION ALL SELECT pg_proc::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT pg_rewrite::text FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT pg_trigger::text FROM pg_trigger WHERE oid >= 16384
    UNION ALL SELECT pg_type::text FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT starelid::text FROM pg_statistic WHERE starelid >= 16384
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting
              WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS objects (object)
"""
"""All that a test may have changed but rows: what is ours in the catalogs (the planner's statistics too)."""

_TABLES_WITH_ROWS = """
SELECT format('%I', relname)
FROM pg_class
WHERE relnamespace = 'public'::regnamespace
  AND relkind = 'r'
  AND pg_relation_size(oid) > 0
"""

_LAST = "SELECT (SELECT max(oid) FROM pg_class), (SELECT max(oid) FROM pg_proc)"

_MADE = """
SELECT 'DROP TABLE ' || oid::regclass || ' CASCADE'
FROM pg_class
WHERE relnamespace = 'public'::regnamespace
  AND relkind = 'r'
  AND oid > %s
UNION ALL
SELECT 'DROP ROUTINE ' || oid::regprocedure || ' CASCADE'
FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
  AND oid > %s
"""
"""What drops the tables and functions that a test has made, and its triggers with them."""

_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000)
FROM pg_stat_activity
WHERE datname = current_database()
  AND pid <> pg_backend_pid()
"""

_RESTART_SEQUENCES = """
SELECT setval(oid::regclass, 1, false)
FROM pg_class
WHERE relkind = 'S'
"""


class Databases:
    """The databases of one server, which all are copies of one that was migrated; none is left behind.

    `prefix` is what their names begin with. `pooler` is the one that tests reach them through, if any.
    """

    def __init__(self, server_url: str, *, prefix: str, pooler: Pooler | None = None) -> None:
        self._server_url = server_url
        self._pooler = pooler
        self._names = (f"{prefix}_{number}" for number in count(1))
        self._free: list[str] = []
        self.template = self._create()
        migrate.upgrade(self._url(self.template))
        with self._connect(self.template) as connection:
            self._last = connection.execute(_LAST).fetchone()
            self._schema = _schema(connection)
            self._rows = {table: _rows(connection, table) for table in _tables_with_rows(connection)}

    def close(self) -> None:
        """Drop what there is; call it when every database was given back."""
        for name in (self.template, *self._free):
            self._drop(name)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """Lend a database with the rows that the migrations make, and no other; yield its URL."""
        name = self._free.pop() if self._free else self._create(f"TEMPLATE {self.template}")
        yield self._url(name)
        if self._restore(name):
            self._free.append(name)
        else:
            self._drop(name)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Lend a database that no migration has touched; yield its URL."""
        name = self._create()
        yield self._url(name)
        self._drop(name)

    def _restore(self, name: str) -> bool:
        """Make the rows what they were; tell whether nothing else is different."""
        if self._pooler is not None:
            self._pooler.forget(name)
        with self._connect(name) as connection:
            connection.execute(_END_OTHER_SESSIONS)
            for (drop,) in connection.execute(_MADE, self._last).fetchall():
                connection.execute(drop)
            if _schema(connection) != self._schema:
                return False
            # No trigger of ours has to say anything to this.
            connection.execute("SET session_replication_role = replica")
            self._restore_rows(connection)
        return True

    def _restore_rows(self, connection: psycopg.Connection) -> None:
        kept = {table for table, rows in self._rows.items() if _rows(connection, table) == rows}
        if changed := (_tables_with_rows(connection) | self._rows.keys()) - kept:
            connection.execute(f"TRUNCATE {', '.join(changed)} CASCADE")
        for table in changed & self._rows.keys():
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(self._rows[table])
        connection.execute(_RESTART_SEQUENCES)

    def _create(self, options: str = "") -> str:
        name = next(self._names)
        with self._connect() as admin:
            admin.execute(f"CREATE DATABASE {name} {options}")
        return name

    def _drop(self, name: str) -> None:
        with self._connect() as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _connect(self, name: str | None = None) -> psycopg.Connection:
        return psycopg.connect(self._url(name) if name else self._server_url, autocommit=True)

    def _url(self, name: str) -> str:
        return conninfo.make_conninfo(self._server_url, dbname=name)


def _schema(connection: psycopg.Connection) -> object:
    return connection.execute(_SCHEMA).fetchone()


def _tables_with_rows(connection: psycopg.Connection) -> set[str]:
    return {table for (table,) in connection.execute(_TABLES_WITH_ROWS)}


def _rows(connection: psycopg.Connection, table: str) -> bytes:
    with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
        return b"".join(copy)

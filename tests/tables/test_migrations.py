import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import conninfo

from schema import migrate, revision
from schema.errors import StartError
from schema.queue import tally
from schema.runtime.connection import Connection
from schema.states import Status
from schema.tables import metadata
from tests.rows import Queue

CHECKOUT = Path(__file__).parents[2]

CATALOG = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, a.attgenerated, a.attstorage, pg_get_expr(d.adbin, d.adrelid),
               col_description(c.oid, a.attnum)
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace
          AND c.relkind = 'r'
          AND a.attnum > 0
          AND NOT a.attisdropped
    """,
    "relations": """
        SELECT relname, relkind, reloptions, obj_description(oid)
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, convalidated, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
          AND contype <> 'n'
    """,
    "indexes": """
        SELECT tablename, indexname, indexdef
        FROM pg_indexes
        WHERE schemaname = 'public'
    """,
    "sequences": """
        SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle
        FROM pg_sequences
        WHERE schemaname = 'public'
    """,
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
}


PROGRAMMED = {"functions", "triggers"}
"""What only the migrations have: no table's description can hold it."""


def catalog(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return {
            kind: sorted(
                (row for row in connection.execute(query).fetchall() if "alembic_version" not in str(row)),
                key=repr,
            )
            for kind, query in CATALOG.items()
        }


def configuration(url: str) -> Config:
    made = Config(attributes={"url": url})
    made.set_main_option("script_location", "schema:migrations")
    return made


@pytest.fixture
def migrated(empty_database_url: str) -> str:
    migrate.upgrade(empty_database_url)
    return empty_database_url


@pytest.fixture
def queue(migrated: str, make_queue: type[Queue]) -> Iterator[Any]:
    """Unlike the other tests' queue, one whose revision may be changed."""
    with Connection.open(migrated, name="test") as connection:
        yield make_queue(connection)


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Connection]:
    with Connection.open(empty_database_url, name="test") as connection:
        yield connection


def test_tables_in_the_code_are_those_of_the_migrations(database_url: str, empty_database_url: str) -> None:
    with migrate.engine(empty_database_url).begin() as connection:
        metadata.create_all(connection)

    made, migrated = catalog(empty_database_url), catalog(database_url)

    assert len(migrated["columns"]) == 86
    for kind in CATALOG.keys() - PROGRAMMED:
        assert made[kind] == migrated[kind], kind
    for kind in PROGRAMMED:
        assert [name for (name,) in migrated[kind]] == [
            f"orders_tally_{event}" for event in ("delete", "insert", "truncate", "update")
        ]


def test_every_table_and_column_is_described(database_url: str) -> None:
    found = catalog(database_url)

    assert [row[:3] for row in found["columns"] if not row[-1]] == []
    assert [row[0] for row in found["relations"] if row[1] == "r" and not row[-1]] == []


def test_keys_that_all_go_within_a_day_are_vacuumed_like_the_orders(database_url: str) -> None:
    options = {row[0]: row[2] or [] for row in catalog(database_url)["relations"]}
    vacuum = [option for option in options["orders"] if option.startswith("autovacuum_")]

    assert options["idempotency_keys"] == vacuum != []


def test_alembic_sees_no_difference(database_url: str) -> None:
    command.check(configuration(database_url))


def test_alembic_s_own_command_reads_setup_cfg(database_url: str) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", "setup.cfg", "check"],
        cwd=CHECKOUT,
        env={"DATABASE_URL": database_url, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout) == (0, "No new upgrade operations detected.\n")


def test_down_leaves_nothing_and_up_again_is_the_same(migrated: str, make_queue: type[Queue]) -> None:
    before = catalog(migrated)
    with Connection.open(migrated, name="test") as connection:
        make_queue(connection).insert("processing")
        make_queue(connection).worker()

    command.downgrade(configuration(migrated), "base")
    assert not any(catalog(migrated).values())

    migrate.upgrade(migrated)
    assert catalog(migrated) == before


def test_migrating_again_keeps_every_row(migrated: str, make_queue: type[Queue]) -> None:
    with Connection.open(migrated, name="test") as connection:
        queue = make_queue(connection)
        for status in ("pending", "processing", "retrying", "completed", "failed", "cancelled"):
            queue.insert(status)
        before = queue.snapshot()

        migrate.upgrade(migrated)

        assert queue.snapshot() == before


def test_migrating_from_the_first_revision_keeps_every_row(
    empty_database_url: str, make_queue: type[Queue]
) -> None:
    command.upgrade(configuration(empty_database_url), "0001")
    with Connection.open(empty_database_url, name="test") as connection:
        queue = make_queue(connection)
        queue.insert("failed")
        connection.execute("""
            INSERT INTO attempts (order_id, attempt, outcome)
            SELECT order_id, 1, 'rejected'
            FROM orders
        """)
        before = connection.execute("SELECT order_id, attempt, outcome, ended_at FROM attempts").fetchall()
        stood = queue.snapshot()

        migrate.upgrade(empty_database_url)

        assert queue.snapshot() == [{**row, "rescues": None} for row in stood]
        after = connection.execute("SELECT order_id, attempt, outcome, ended_at FROM attempts").fetchall()
        assert after == before != []


def test_orders_that_were_there_before_the_tally_are_in_it(
    empty_database_url: str, make_queue: type[Queue]
) -> None:
    command.upgrade(configuration(empty_database_url), "0004")
    with Connection.open(empty_database_url, name="test") as connection:
        for status in ("pending", "pending", "completed"):
            make_queue(connection).insert(status)

        migrate.upgrade(empty_database_url)

        found = tally.read(connection)
    assert found.counts == {**dict.fromkeys(Status, 0), Status.PENDING: 2, Status.COMPLETED: 1}
    assert found.timed == 1


def test_ten_processes_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    code = f"from schema import migrate; migrate.upgrade({empty_database_url!r})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(10)
    ]

    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 10, outputs
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (revision.NEEDED,)
        ]
        assert connection.execute("SELECT count(*) FROM queue").fetchall() == [(1,)]


@pytest.mark.direct("a session lock stands for the other one")
def test_migration_waits_for_another_one(
    empty: Connection, empty_database_url: str, in_thread: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    empty.execute("SELECT pg_advisory_lock(%s)", (migrate.LOCK_KEY,))

    running = in_thread(migrate.upgrade, empty_database_url)
    waiting = """
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database()
          AND query LIKE '%pg_try_advisory_lock%'
          AND pid <> pg_backend_pid()
    """
    wait_until(lambda: empty.execute(waiting).fetchall() == [(1,)])
    assert empty.execute("SELECT to_regclass('orders')").fetchall() == [(None,)]
    empty.execute("SELECT pg_advisory_unlock(%s)", (migrate.LOCK_KEY,))
    running.result()

    revision.check(empty)


def test_empty_database_needs_migrating(empty: Connection) -> None:
    with pytest.raises(revision.SchemaOutdatedError, match=r"revision none.*`orders migrate`"):
        revision.check(empty)


def test_database_that_was_migrated_down_needs_migrating(migrated: str) -> None:
    command.downgrade(configuration(migrated), "base")

    with (
        Connection.open(migrated, name="test") as connection,
        pytest.raises(revision.SchemaOutdatedError, match="revision none"),
    ):
        revision.check(connection)


def test_older_revision_needs_migrating(queue: Queue) -> None:
    queue.connection.execute("UPDATE alembic_version SET version_num = '0000'")

    with pytest.raises(revision.SchemaOutdatedError, match=r"revision 0000.*`orders migrate`"):
        revision.check(queue.connection)


def test_this_revision_and_a_newer_one_that_still_allows_it_are_fine(queue: Queue) -> None:
    revision.check(queue.connection)
    queue.connection.execute("UPDATE alembic_version SET version_num = '0999'")
    revision.check(queue.connection)
    queue.connection.execute("DELETE FROM queue")
    revision.check(queue.connection)


def test_newer_revision_that_asks_for_newer_programs_refuses_these(queue: Queue) -> None:
    queue.connection.execute("UPDATE alembic_version SET version_num = '0999'")
    queue.connection.execute("UPDATE queue SET requires_revision = '0999'")

    with pytest.raises(revision.SchemaTooNewError, match="revision 0999 or newer"):
        revision.check(queue.connection)


def test_needed_revision_is_the_newest_there_is(queue: Queue) -> None:
    assert queue.value("SELECT version_num FROM alembic_version") == revision.NEEDED


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port on which connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("ports", ["{port}", "1,{port}", "{mute},{port}"])
def test_migration_finds_the_server_that_is_not_the_first_in_the_list(
    empty_database_url: str, mute_port: int, ports: str
) -> None:
    given = conninfo.conninfo_to_dict(empty_database_url)
    ports = ports.format(port=given["port"], mute=mute_port)
    several = {"host": f"127.0.0.1,{given['host']}", "port": ports}

    migrate.upgrade(conninfo.make_conninfo(empty_database_url, **several))

    with Connection.open(empty_database_url, name="test") as connection:
        revision.check(connection)


@pytest.mark.direct("its sessions are its own, with settings")
def test_migration_speaks_utf_8_and_iso_whatever_the_defaults_of_the_database_are(
    empty_database_url: str, empty: Connection
) -> None:
    (name,) = empty.one("SELECT quote_ident(current_database())")
    for setting in (
        "client_encoding = SQL_ASCII",
        "DateStyle = German",
        "default_transaction_read_only = on",
    ):
        empty.execute(f"ALTER DATABASE {name} SET {setting}")

    migrate.upgrade(empty_database_url)

    described = "SELECT obj_description('orders'::regclass)"
    with Connection.open(empty_database_url, name="test") as connection:
        assert connection.one(described) == ("The queue: one row an order, kept after it is done.",)


@pytest.mark.direct("through a pooler, it is asked for by name")
def test_database_of_another_encoding_is_left_as_it_is(empty_database_url: str, empty: Connection) -> None:
    (name,) = empty.one("SELECT current_database() || '_latin1'")
    url = conninfo.make_conninfo(empty_database_url, dbname=name)
    empty.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(StartError, match="encoding is LATIN1: it must be UTF8"):
            migrate.upgrade(url)

        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('orders')").fetchone() == (None,)
    finally:
        empty.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_older_program_leaves_a_newer_schema_that_allows_it_as_it_is(queue: Queue, migrated: str) -> None:
    queue.connection.execute("UPDATE alembic_version SET version_num = '0999'")

    assert migrate.upgrade(migrated) == "0999"


def test_older_program_does_not_migrate_a_schema_that_asks_for_a_newer_one(
    queue: Queue, migrated: str
) -> None:
    queue.connection.execute("UPDATE alembic_version SET version_num = '0999'")
    queue.connection.execute("UPDATE queue SET requires_revision = '0999'")

    with pytest.raises(revision.SchemaTooNewError):
        migrate.upgrade(migrated)


def test_revision_that_is_nobodys_is_one_line(queue: Queue, migrated: str) -> None:
    queue.connection.execute("UPDATE alembic_version SET version_num = '0000'")

    with pytest.raises(StartError, match="0000"):
        migrate.upgrade(migrated)

"""What stands beside a migration while it runs, and what is left of one that was broken off."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from schema import migrate, revision
from schema.errors import StartError, StatementRefusedError
from schema.queue import tally
from schema.runtime.connection import Connection
from schema.states import Status
from tests.rows import Queue

FIRST_RELEASE = "0005"
"""The revision of the first release. What came before had no programs to run beside."""

ORDERS = 100_000

PROGRAMS = {
    "a POST": """
        INSERT INTO orders (order_id, user_id, item_ids, total_amount)
        VALUES (gen_random_uuid(), 'ada', '{tea}', 250.75)
    """,
    "a claim and a completion": """
        WITH next AS MATERIALIZED (
            SELECT order_id FROM orders WHERE in_line ORDER BY seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE orders
        SET status = 'completed', attempt = 1, attempt_limit = 5, worker_id = 'w',
            started_at = clock_timestamp(), finished_at = clock_timestamp()
        FROM next
        WHERE orders.order_id = next.order_id
    """,
    "a failed attempt": """
        INSERT INTO attempts (order_id, attempt, outcome) VALUES (gen_random_uuid(), 1, 'raised')
    """,
    "a worker's start": """
        INSERT INTO workers (worker_id, host, pid, slots, lease_seconds, oldest_claim_at)
        VALUES (gen_random_uuid()::text, 'box', 1, 1, 10, clock_timestamp())
    """,
    "a heartbeat": "UPDATE workers SET heartbeat_at = clock_timestamp() WHERE worker_id = 'w'",
    "a look at the switch": "SELECT paused_at, requires_revision FROM queue",
    "a key": """
        INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash)
        VALUES (gen_random_uuid()::text, gen_random_uuid(), '')
    """,
    "an import": """
        INSERT INTO imports (sha256, path) VALUES (sha256(gen_random_uuid()::text::bytea), '')
    """,
    "the metrics": "SELECT sum(tally.pending) FROM tally, tally_changes",
}
"""What the programs of that release send, by what it is for: frozen, as those programs are."""


def configuration(url: str) -> Config:
    made = Config(attributes={"url": url})
    made.set_main_option("script_location", "schema:migrations")
    return made


def newer() -> list[tuple[str, str]]:
    """Return each migration since that release, as the revision before it and its own."""
    script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    found = script.walk_revisions(FIRST_RELEASE, "head")
    return [(str(each.down_revision), each.revision) for each in found if each.revision > FIRST_RELEASE]


@pytest.fixture
def at(empty_database_url: str) -> Callable[[str], str]:
    """Migrate to a revision; return the URL."""

    def migrated(to: str) -> str:
        command.upgrade(configuration(empty_database_url), to)
        return empty_database_url

    return migrated


@pytest.fixture
def connected(empty_database_url: str) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(psycopg.connect(empty_database_url, autocommit=True))


class Program(threading.Thread):
    """Runs one statement again and again; `error` is what broke it off."""

    def __init__(self, connection: psycopg.Connection[Any], statement: str) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        # The server's own clock: a machine that is slow blocks nobody.
        connection.execute("SET lock_timeout = '1s'")
        self._statement = statement
        self._over = threading.Event()
        self.rounds = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(0.001):
                self._connection.execute(self._statement)
                self.rounds += 1
        except psycopg.Error as error:
            self.error = error

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def run_programs(
    connected: Callable[[], psycopg.Connection[Any]], wait_until: Callable[..., Any]
) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Have all programs run during a piece of work, and for some rounds before and after."""
    programs: list[Program] = []

    def some_rounds() -> None:
        before = [program.rounds for program in programs]
        wait_until(
            lambda: all(
                program.rounds > count + 5 or program.error
                for program, count in zip(programs, before, strict=True)
            )
        )

    def run(work: Callable[[], Any]) -> None:
        programs[:] = [Program(connected(), statement) for statement in PROGRAMS.values()]
        for program in programs:
            program.start()
        some_rounds()
        work()
        some_rounds()
        for program in programs:
            program.end()
        assert [program.error for program in programs] == [None] * len(programs)

    yield run
    for program in programs:
        program.end()


@pytest.mark.direct("its sessions are its own, with settings")
@pytest.mark.parametrize(("before", "after"), newer())
def test_migration_of_a_large_table_blocks_no_program_of_the_release_before(
    at: Callable[[str], str],
    connected: Callable[[], psycopg.Connection[Any]],
    run_programs: Callable[[Callable[[], Any]], None],
    before: str,
    after: str,
) -> None:
    url = at(before)
    connection = connected()
    connection.execute(
        """
        INSERT INTO orders (order_id, user_id, item_ids, total_amount)
        SELECT gen_random_uuid(), 'ada', '{tea,cup}', 250.75 FROM generate_series(1, %s)
        """,
        [ORDERS],
    )
    connection.execute("INSERT INTO workers (worker_id) VALUES ('w')")
    forgotten = connected()

    def beside_a_forgotten_transaction(work: Callable[[], Any]) -> None:
        """Somebody at psql: a migration that waits for them has all others wait behind itself."""
        forgotten.execute("BEGIN; SELECT count(*) FROM orders; UPDATE queue SET paused_at = NULL WHERE false")
        remembered = threading.Timer(3, forgotten.commit)
        remembered.start()
        work()
        remembered.join()

    up = functools.partial(command.upgrade, configuration(url), after)
    down = functools.partial(command.downgrade, configuration(url), before)
    run_programs(lambda: beside_a_forgotten_transaction(up))
    run_programs(lambda: beside_a_forgotten_transaction(down))

    command.upgrade(configuration(url), "head")
    with Connection.open(url, name="test") as ours:
        counted = ours.execute("SELECT status, count(*) FROM orders GROUP BY status").fetchall()
        assert {status.value: n for status, n in tally.read(ours).counts.items() if n} == dict(counted)


def test_edit_out_of_a_final_state_is_refused_from_revision_0008_on(
    at: Callable[[str], str], make_queue: type[Queue]
) -> None:
    url = at("0008")
    with Connection.open(url, name="test") as ours:
        order_id = make_queue(ours).insert("completed")
        with pytest.raises(StatementRefusedError, match="completed and cancelled orders stay"):
            make_queue(ours).change(order_id, "status = 'cancelled'")

        command.downgrade(configuration(url), "0007")

        make_queue(ours).change(order_id, "status = 'cancelled'")
        assert tally.read(ours).counts[Status.CANCELLED] == 1


@pytest.mark.direct("its sessions are its own, with settings")
def test_migration_that_needs_a_table_in_use_lets_others_pass_while_it_waits(
    at: Callable[[str], str],
    connected: Callable[[], psycopg.Connection[Any]],
    in_thread: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    url = at("0004")
    forgotten, watching = connected(), connected()
    forgotten.execute(
        "BEGIN; INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
        " VALUES (gen_random_uuid(), 'ada', '{tea}', 1)"
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
    program = Program(connected(), PROGRAMS["a POST"])

    running = in_thread(migrate.upgrade, url)
    program.start()
    for _ in range(2):
        wait_until(lambda: watching.execute(waiting).fetchone() != (0,))
        count = program.rounds
        wait_until(lambda: program.rounds > count + 5 or program.error)  # noqa: B023
    program.end()
    forgotten.execute("ROLLBACK")
    running.result()

    assert program.error is None
    with Connection.open(url, name="test") as ours:
        revision.check(ours)
        assert sum(tally.read(ours).counts.values()) == program.rounds


@pytest.mark.direct("a session lock")
def test_index_can_be_built_beside_a_migration_that_waits_for_another_one(
    at: Callable[[str], str],
    connected: Callable[[], psycopg.Connection[Any]],
    in_thread: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    url = at("head")
    other = connected()
    other.execute("SELECT pg_advisory_lock(%s)", [migrate.LOCK_KEY])
    running = in_thread(migrate.upgrade, url)
    there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%lock%'"
    wait_until(lambda: other.execute(there + " AND pid <> pg_backend_pid()").fetchone() != (0,))

    other.execute("SET statement_timeout = '10s'")
    other.execute("CREATE INDEX CONCURRENTLY mine ON orders (user_id)")
    other.execute("SELECT pg_advisory_unlock(%s)", [migrate.LOCK_KEY])
    running.result()

    assert other.execute("SELECT to_regclass('mine')").fetchone() == ("mine",)


def test_index_whose_building_broke_off_is_built_anew(
    at: Callable[[str], str], connected: Callable[[], psycopg.Connection[Any]]
) -> None:
    url = at("head")
    forgotten, builder = connected(), connected()
    definition = "CREATE INDEX orders_due ON orders (retry_at) WHERE retry_at IS NOT NULL"
    builder.execute("DROP INDEX orders_due")
    forgotten.execute("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE")
    builder.execute("SET lock_timeout = '100ms'")
    for index, name in ((definition, "orders_due"), ("CREATE INDEX users ON orders (user_id)", "users")):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            builder.execute(index.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"))
        assert is_valid(builder, name) == (False,)
    forgotten.execute("ROLLBACK")

    migrate.upgrade(url)

    assert is_valid(builder, "orders_due") == (True,)
    assert is_valid(builder, "users") == (False,), "somebody else may be building it"


@pytest.mark.direct("an index is built outside of a transaction")
def test_migration_whose_index_broke_off_goes_through_when_it_is_given_again(
    at: Callable[[str], str],
    connected: Callable[[], psycopg.Connection[Any]],
    in_thread: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    url = at("0008")
    forgotten, watching = connected(), connected()
    forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM queue")
    building = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'CREATE INDEX CONCURRENTLY%orders_alone%' AND wait_event_type = 'Lock'"
    )

    running = in_thread(migrate.upgrade, url)
    (builder,) = wait_until(lambda: watching.execute(building).fetchone())
    watching.execute("SELECT pg_cancel_backend(%s)", [builder])
    with pytest.raises(StartError):
        running.result(timeout=30)
    assert is_valid(watching, "orders_alone") == (False,)
    forgotten.execute("ROLLBACK")

    migrate.upgrade(url)

    assert is_valid(watching, "orders_alone") == (True,)
    with Connection.open(url, name="test") as ours:
        assert revision.check(ours) == revision.NEEDED


def is_valid(connection: psycopg.Connection[Any], index: str) -> Any:
    return connection.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [index]
    ).fetchone()


@pytest.mark.direct("its sessions know the schema by its name")
@pytest.mark.parametrize("name", ["shop", 'Ada\'s "shop" % {0}'])
def test_schema_that_was_renamed_needs_migrating_and_is_as_before(
    at: Callable[[str], str],
    connected: Callable[[], psycopg.Connection[Any]],
    name: str,
    make_queue: type[Queue],
) -> None:
    url = at("head")
    connection = connected()
    quoted = '"{}"'.format(name.replace('"', '""'))
    with Connection.open(url, name="test") as ours:
        make_queue(ours).line(2)
    connection.execute(f"ALTER SCHEMA public RENAME TO {quoted}")
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = {quoted}")

    with Connection.open(url, name="test") as ours:
        with pytest.raises(StatementRefusedError, match=r"tally_changes.*`orders migrate`"):
            make_queue(ours).line(1)
        with pytest.raises(revision.SchemaRenamedError, match="`orders migrate`"):
            revision.check(ours)

    migrate.upgrade(url)

    with Connection.open(url, name="test") as ours:
        revision.check(ours)
        make_queue(ours).line(1)
        ours.execute("UPDATE orders SET status = 'completed', finished_at = clock_timestamp()")
        with pytest.raises(StatementRefusedError, match="completed and cancelled orders stay"):
            ours.execute("UPDATE orders SET status = 'cancelled'")
        assert tally.read(ours).counts[Status.COMPLETED] == 3
        tally.fold(ours)
        ours.execute("TRUNCATE orders")
        assert sum(tally.read(ours).counts.values()) == 0
    migrate.upgrade(url)

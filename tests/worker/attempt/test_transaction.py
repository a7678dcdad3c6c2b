import re
from collections.abc import Callable
from typing import Any

import pytest

from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartWorker, Worker

BOOK = """
def book(context, order, what="booked"):
    row = [order.order_id, order.attempt, what]
    context.transaction().execute("INSERT INTO ledger VALUES (%s, %s, %s)", row)
"""

GOOD = {
    "the connection itself": """
        book(context, order)
    """,
    "as a with block": """
        with context.transaction() as connection:
            connection.execute("SELECT 1")
        book(context, order)
    """,
    "rows as dictionaries": """
        from psycopg.rows import dict_row
        context.transaction().row_factory = dict_row
        book(context, order)
    """,
    "a savepoint rolled back": """
        book(context, order)
        try:
            with context.transaction().transaction():
                book(context, order, "undone")
                context.transaction().execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
    """,
    "a thread of its own that writes": """
        thread = threading.Thread(target=book, args=[context, order])
        thread.start()
        thread.join()
    """,
}

UPSIDE_DOWN = """
        connection = context.transaction()
        connection.execute("SET search_path TO public; SET statement_timeout = '3s'")
        connection.execute("PREPARE mine AS SELECT 1; CREATE TEMP TABLE mine (); LISTEN mine")
        connection.execute("SELECT pg_advisory_lock(7)")
        book(context, order)
    """

BAD = {
    "raising": ("book(context, order); raise ValueError('no')", "ValueError: no"),
    "commit": ("book(context, order); context.transaction().commit()", "must not commit"),
    "rollback": ("book(context, order); context.transaction().rollback()", "must not rollback"),
    "close": ("book(context, order); context.transaction().close()", "must not close"),
    "a swallowed error": (
        """
    book(context, order)
    try:
        context.transaction().execute("SELECT 1/0")
    except psycopg.Error:
        pass
        """,
        "aborted or ended",
    ),
    "rollback as text": (
        "book(context, order); context.transaction().execute('ROLLBACK')",
        "aborted or ended",
    ),
    "another begun": (
        "book(context, order); context.transaction().execute('ROLLBACK; BEGIN')",
        "aborted or ended",
    ),
    "a deferred constraint": (
        "book(context, order); context.transaction().execute('INSERT INTO debts VALUES (1), (1)')",
        "UniqueViolation",
    ),
    "a lost session": (
        """
    book(context, order)
    (pid,) = context.transaction().execute("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        """,
        # A pooler may notice it first, and says so in its own words.
        "AdminShutdown|server connection closed",
    ),
    "a transaction that idles for longer than a lease": (
        "book(context, order); time.sleep(1.1); book(context, order)",
        "TransactionIdleError: no statement ran in the transaction for 0.8 seconds",
    ),
}


@pytest.fixture
def ledger(queue: Queue) -> Callable[[], list[Any]]:
    queue.connection.execute("""
        CREATE TABLE ledger (order_id uuid, attempt integer, what text);
        CREATE TABLE debts (debtor integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
    """)
    return lambda: queue.all("SELECT order_id, attempt, what FROM ledger ORDER BY attempt")


@pytest.mark.parametrize(
    "body",
    [
        *(pytest.param(body, id=name) for name, body in GOOD.items()),
        pytest.param(
            UPSIDE_DOWN,
            id="a session that was turned upside down",
            marks=pytest.mark.direct("through a pooler it stays upside down for everybody"),
        ),
    ],
)
def test_what_a_handler_writes_commits_with_the_completion(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], body: str
) -> None:
    worker = start_worker(f"{BOOK}\ndef handle(order, context):{body}")
    # Two, one after another: what the first did to its session is not the second one's business.
    first, second = queue.submit(2)
    queue.until_all("completed")

    assert ledger() == [(first, 1, "booked"), (second, 1, "booked")]
    assert worker.stop() == 0
    assert worker.warnings == []


@pytest.mark.parametrize(("body", "error"), BAD.values(), ids=BAD)
def test_what_a_handler_writes_is_gone_with_a_failed_attempt(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], body: str, error: str
) -> None:
    worker = start_worker(
        f"{BOOK}\ndef bad(order, context):\n    {body}\n"
        "def good(order, context):\n    book(context, order)\n"
        "def handle(order, context):\n    (bad if order.seq == 1 else good)(order, context)",
        ORDERS_LEASE_SECONDS=1,
        ORDERS_MAX_ATTEMPTS=1,
    )
    first, second = queue.submit(2)
    order = queue.until(first, "failed")
    queue.until(second, "completed")

    assert order.last_error is not None
    assert re.search(error, order.last_error)
    assert ledger() == [(second, 1, "booked")]
    assert queue.attempts(first) == [(1, "raised")]
    assert worker.stop() == 0


def test_commit_sent_as_text_is_a_failed_attempt(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]]
) -> None:
    start_worker(
        f"{BOOK}\ndef handle(order, context):\n    book(context, order)\n"
        "    if order.attempt == 1: context.transaction().execute('COMMIT')"
    )
    order_id = queue.submit_one()
    queue.until(order_id, "completed")

    # The first row is what the handler brought about itself.
    assert ledger() == [(order_id, 1, "booked"), (order_id, 2, "booked")]
    assert queue.attempts(order_id) == [(1, "raised")]


def test_context_tells_the_attempt_and_a_key_that_stays(
    start_worker: StartWorker, queue: Queue, notes: Any
) -> None:
    start_worker("""
def handle(order, context):
    note(order, context.idempotency_key, number=context.attempt, limit=context.deadline)
    if order.attempt < 2:
        raise ValueError
""")
    order_id = queue.submit_one()
    queue.until(order_id, "completed")

    assert [line["number"] for line in notes()] == [1, 2]
    assert [line["limit"] for line in notes()] == [None] * 2
    assert {line["what"] for line in notes()} == {str(order_id)}


def sleeping_in_commit(queue: Queue) -> int | None:
    pid: int | None = queue.one("""
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'orders-handler'
          AND right(query, 6) = 'COMMIT' AND wait_event = 'PgSleep'
    """)
    return pid


@pytest.fixture
def slow_commit(queue: Queue, ledger: object) -> None:  # noqa: ARG001 - its table is needed
    """Have the commit of a booking take its time, once."""
    queue.connection.execute("""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.attempt = 1) EXECUTE FUNCTION dawdle();
    """)


@pytest.mark.usefixtures("slow_commit")
def test_commit_that_broke_off_undone_is_a_failed_attempt(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], wait_until: Callable[..., Any]
) -> None:
    start_worker(f"{BOOK}\ndef handle(order, context): book(context, order)")
    order_id = queue.submit_one()
    pid = wait_until(lambda: sleeping_in_commit(queue))

    queue.one("SELECT pg_terminate_backend(%s)", pid)

    queue.until(order_id, "completed")
    assert queue.attempts(order_id) == [(1, "raised")]
    assert ledger() == [(order_id, 2, "booked")]


def test_more_slots_than_connections_wait_for_one_another(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], wait_until: Callable[..., Any]
) -> None:
    start_worker(
        f"{BOOK}\ndef handle(order, context): book(context, order); time.sleep(0.01)",
        ORDERS_CONCURRENCY=8,
        ORDERS_HANDLER_CONNECTIONS=2,
    )
    ids = queue.submit(60)
    most = 0
    # A pooler's idle session keeps the name of whom it served last.
    sessions = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'orders-handler' AND state <> 'idle'
    """

    def done() -> bool:
        nonlocal most
        most = max(most, queue.one(sessions))
        return queue.counts() == {"completed": 60}

    wait_until(done)
    assert sorted(row[0] for row in ledger()) == sorted(ids)
    assert most == 2


def test_connection_kept_beyond_the_return_is_of_no_use(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], notes: Any
) -> None:
    start_worker(f"""{BOOK}
kept = []

def handle(order, context):
    if not kept:
        book(context, order)
        connection = context.transaction()
        kept.extend([connection, context, connection.cursor()])
        return
    context.transaction()
    first, its_context, its_cursor = kept
    deletion = "DELETE FROM ledger"
    for attempt in (
        lambda: first.execute(deletion), its_context.transaction, lambda: its_cursor.execute(deletion)
    ):
        try:
            attempt()
        except Exception as error:
            note(order, type(error).__name__)
    first.close()
    first.cancel()
""")
    first, _ = queue.submit(2)
    queue.until_all("completed")

    assert ledger() == [(first, 1, "booked")]
    assert [line["what"] for line in notes()] == ["OperationalError", "TransactionError", "TransactionError"]


CHANGES_ITS_CONNECTION = """
import warnings
from psycopg.rows import dict_row
from psycopg.types.numeric import IntLoader

class Loud(IntLoader):
    def load(self, data):
        return "loud"

class OwnCursor(psycopg.Cursor):
    pass

def handle(order, context):
    connection = context.transaction()
    state = {
        "number": connection.execute("SELECT 1").fetchone()[0],
        "own_cursor": isinstance(connection.cursor(), OwnCursor),
        "threshold": connection.prepare_threshold,
        "most": connection.prepared_max,
        "attribute": getattr(connection, "attribute", None),
    }
    note(order, "found", pid_of_session=connection.info.backend_pid, state=state)
    connection.adapters.register_loader("int4", Loud)
    connection.add_notice_handler(lambda notice: note(order, "noticed"))
    connection.add_notify_handler(lambda notify: note(order, "notified"))
    connection.cursor_factory = OwnCursor
    connection.prepared_max = 0
    connection.prepare_threshold = 0
    connection.attribute = "kept"
    connection.row_factory = dict_row
    connection.execute("DO $$ BEGIN RAISE NOTICE 'listen'; END $$")
"""


@pytest.mark.direct
def test_connection_is_as_new_for_each_order(start_worker: StartWorker, queue: Queue, notes: Any) -> None:
    start_worker(CHANGES_ITS_CONNECTION)
    queue.submit(3)
    queue.until_all("completed")

    first, *others = notes("found")
    assert first["state"]["number"] == 1
    assert [other["state"] for other in others] == [first["state"]] * 2
    assert {other["pid_of_session"] for other in others} == {first["pid_of_session"]}
    assert len(notes("noticed")) == 3


@pytest.mark.slow
def test_transaction_waits_while_the_connections_are_terminated_under_load(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]], wait_until: Callable[..., Any]
) -> None:
    worker: Worker = start_worker(
        f"{BOOK}\ndef handle(order, context): book(context, order)",
        ORDERS_CONCURRENCY=4,
        ORDERS_MAX_ATTEMPTS=1000,
    )
    ids = queue.submit(300)
    kills = 0
    while queue.counts().get("completed", 0) < 300:
        kills += queue.terminate("orders-handler")
        seen = queue.counts().get("completed", 0)
        wait_until(lambda: queue.counts().get("completed", 0) >= min(seen + 20, 300))  # noqa: B023

    assert kills > 3
    assert sorted(row[0] for row in ledger()) == sorted(ids)
    assert worker.stop() == 0


def test_locks_of_a_killed_workers_transaction_are_free_at_once(
    start_worker: StartWorker,
    queue: Queue,
    connect: Callable[[], Connection],
    ledger: Callable[[], list[Any]],
    notes: Any,
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker(f"""{BOOK}
def handle(order, context):
    book(context, order)
    context.transaction().execute("LOCK TABLE debts")
    note(order)
    wait_for("never")
""")
    queue.submit_one()
    wait_until(notes)
    worker.process.kill()

    with connect() as other:
        other.execute("SET lock_timeout = '5s'")
        other.execute("LOCK TABLE debts; SELECT 1")
    assert ledger() == []


def test_handlers_that_do_the_same_on_one_connection_again_and_again_never_fail(
    start_worker: StartWorker, queue: Queue, ledger: Callable[[], list[Any]]
) -> None:
    worker = start_worker(f"{BOOK}\ndef handle(order, context): book(context, order)")
    # Psycopg prepares what it is given for the sixth time.
    ids = queue.submit(20)
    queue.until_all("completed")

    assert sorted(ledger()) == sorted((order_id, 1, "booked") for order_id in ids)
    assert worker.stop() == 0
    assert "handler_raised" not in worker.log

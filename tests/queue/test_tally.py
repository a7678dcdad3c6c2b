"""The tally against what counting the rows says, whatever writes them."""

from collections.abc import Callable
from typing import Any

import pytest

from schema.errors import StatementRefusedError
from schema.queue import tally
from schema.queue.tally import TallyLostError
from schema.runtime.connection import Connection
from schema.states import Status
from tests.model.database import COUNT
from tests.rows import Queue

MANY = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), 'ada', '{tea}', 1
FROM generate_series(1, %s)
"""

BY_HAND = {
    "inserts many": MANY.replace("%s", "100"),
    "copies many": "COPY",
    "completes some": "UPDATE orders SET status = 'completed', worker_id = 'w', started_at = queued_at,"
    " finished_at = clock_timestamp() WHERE seq % 2 = 0 AND status = 'pending'",
    "moves an end": "UPDATE orders SET finished_at = finished_at + INTERVAL '1 hour'"
    " WHERE status = 'completed'",
    "forgets a start": "UPDATE orders SET started_at = NULL WHERE status = 'completed'",
    "changes nothing that counts": "UPDATE orders SET user_id = 'eve'",
    "moves a key": "UPDATE orders SET order_id = gen_random_uuid()",
    "upserts": "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
    " SELECT order_id, 'eve', '{tea}', 1 FROM orders"
    " ON CONFLICT (order_id) DO UPDATE SET last_error = 'twice'",
    "merges": "MERGE INTO orders USING (SELECT 'pending' AS status) AS s ON orders.status = s.status"
    " WHEN MATCHED THEN DELETE",
    "writes in two parts of one statement": f"WITH more AS ({MANY.replace('%s', '3')} RETURNING 1)"
    " DELETE FROM orders WHERE status = 'failed'",
    "deletes some": "DELETE FROM orders WHERE seq % 3 = 0",
    "truncates": "TRUNCATE orders",
}


def tallied(connection: Connection) -> tuple[object, ...]:
    now = tally.read(connection)
    return *now.counts.values(), now.seconds_to_completion, now.timed, now.seconds_in_slot


def counted(connection: Connection) -> tuple[object, ...]:
    return connection.execute(COUNT).fetchone() or ()


def changes(queue: Queue) -> int:
    return int(queue.value("SELECT count(*) FROM tally_changes"))


def write(connection: Connection, statement: str) -> None:
    if statement != "COPY":
        connection.execute(statement)
        return
    with connection.cursor().copy(
        "COPY orders (order_id, user_id, item_ids, total_amount, status, finished_at) FROM STDIN"
    ) as copy:
        for number in range(50):
            copy.write_row([f"{number:032x}", "ada", ["tea"], 1, "completed", "2031-05-01"])


@pytest.mark.parametrize("fold", [tally.fold, id], ids=["folded", "not folded"])
def test_tally_is_exact_whatever_people_write_by_hand(queue: Queue, fold: Callable[[Any], int]) -> None:
    for status in Status:
        queue.insert(status)
    for name, statement in BY_HAND.items():
        write(queue.connection, statement)
        fold(queue.connection)

        assert tallied(queue.connection) == counted(queue.connection), name
    assert sum(tally.read(queue.connection).counts.values()) == 0


@pytest.mark.direct("a transaction across several statements")
def test_each_transaction_sees_its_own_changes_and_nobody_else_before_the_commit(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    other = connect()
    other.execute("BEGIN")
    other.execute(MANY, (7,))
    other.execute("DELETE FROM orders WHERE seq = (SELECT min(seq) FROM orders)")

    assert tally.read(other).counts[Status.PENDING] == 6
    assert tally.read(queue.connection).counts[Status.PENDING] == 0
    other.execute("ROLLBACK")
    assert tally.read(other).counts[Status.PENDING] == 0


def test_exchange_that_moves_nothing_writes_nothing(queue: Queue) -> None:
    queue.worker()
    queue.claim()

    assert changes(queue) == 0


def test_folding_keeps_the_numbers_and_takes_the_changes_away(queue: Queue) -> None:
    queue.worker()
    queue.line(5)
    claims = queue.claim(free=3)
    queue.exchange("w", finished=[claim.fence for claim in claims[:2]])
    before = tallied(queue.connection)
    assert changes(queue) == 7

    assert tally.fold(queue.connection) == 7

    assert changes(queue) == 0
    assert tallied(queue.connection) == before == counted(queue.connection)
    assert tally.fold(queue.connection) == 0


def test_folding_is_bounded(queue: Queue) -> None:
    queue.connection.execute("INSERT INTO tally_changes (pending) SELECT 1 FROM generate_series(1, 10007)")

    assert tally.fold(queue.connection) == tally.FOLD_LIMIT
    assert tally.read(queue.connection).counts[Status.PENDING] == 10_007
    assert tally.fold(queue.connection) == 7
    assert tally.read(queue.connection).counts[Status.PENDING] == 10_007
    queue.connection.execute("TRUNCATE orders")


@pytest.mark.direct("a transaction across several statements")
def test_folding_waits_for_nobody(queue: Queue, connect: Callable[[], Connection]) -> None:
    queue.line(1)
    other = connect()
    other.execute("BEGIN")
    assert tally.fold(other) == 1

    assert tally.fold(queue.connection) == 0
    queue.line(1)
    other.execute("COMMIT")

    assert tallied(queue.connection) == counted(queue.connection)


@pytest.mark.direct("a transaction across several statements")
def test_change_that_is_committed_late_is_counted_after_younger_ones_were_folded(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    late = connect()
    late.execute("BEGIN")
    late.execute(MANY, (3,))
    queue.line(2)
    assert tally.fold(queue.connection) == 2
    queue.line(1)
    assert tally.fold(queue.connection) == 1

    late.execute("COMMIT")

    assert tally.read(queue.connection).counts[Status.PENDING] == 6
    assert tally.fold(queue.connection) == 1
    assert tally.read(queue.connection).counts[Status.PENDING] == 6


@pytest.mark.direct("a transaction across several statements")
def test_open_snapshot_does_not_make_reading_slower(queue: Queue, connect: Callable[[], Connection]) -> None:
    report = connect()
    report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    report.execute("SELECT count(*) FROM orders").fetchone()
    with queue.connection.transaction():
        pass
    for _ in range(20):
        queue.connection.execute("INSERT INTO tally_changes (pending) SELECT 0 FROM generate_series(1, 1000)")
        tally.fold(queue.connection)

    ((plan,),) = queue.connection.one(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {tally._READ}")

    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 40
    report.execute("COMMIT")


def test_tally_restored_from_a_server_with_larger_transaction_numbers_stays_exact(queue: Queue) -> None:
    queue.line(2)
    tally.fold(queue.connection)
    queue.connection.execute("UPDATE tally SET floor = 10 ^ 15")
    queue.line(3)

    assert tallied(queue.connection) == counted(queue.connection)
    tally.fold(queue.connection)
    queue.line(1)
    assert tallied(queue.connection) == counted(queue.connection)


@pytest.mark.direct("SET ROLE")
def test_role_that_may_only_insert_orders_is_counted_too(queue: Queue) -> None:
    queue.connection.execute("DROP ROLE IF EXISTS orders_clerk; CREATE ROLE orders_clerk")
    queue.connection.execute("GRANT INSERT ON orders TO orders_clerk")
    try:
        queue.connection.execute("SET ROLE orders_clerk")
        queue.line(2)
    finally:
        queue.connection.execute("RESET ROLE; DROP OWNED BY orders_clerk; DROP ROLE orders_clerk")

    assert tally.read(queue.connection).counts[Status.PENDING] == 2


@pytest.mark.direct("SET ROLE")
def test_nobody_else_can_have_the_tally_s_functions_run(queue: Queue) -> None:
    queue.connection.execute("DROP ROLE IF EXISTS orders_stranger; CREATE ROLE orders_stranger")
    try:
        queue.connection.execute("SET ROLE orders_stranger; CREATE TEMP TABLE mine ()")
        with pytest.raises(StatementRefusedError, match="InsufficientPrivilege"):
            queue.connection.execute(
                "CREATE TRIGGER reset AFTER TRUNCATE ON mine EXECUTE FUNCTION orders_tally_truncate()"
            )
    finally:
        queue.connection.execute("RESET ROLE; DROP OWNED BY orders_stranger; DROP ROLE orders_stranger")


@pytest.mark.direct("SET ROLE")
def test_operator_of_a_role_that_may_create_in_the_schema_is_not_run_as_the_owner(queue: Queue) -> None:
    queue.connection.execute("DROP ROLE IF EXISTS orders_mallory; CREATE ROLE orders_mallory")
    queue.connection.execute("GRANT CREATE ON SCHEMA public TO orders_mallory")
    try:
        # Better matches than those of pg_catalog, which comes first in every search path.
        queue.connection.execute("SET ROLE orders_mallory; CREATE TABLE loot (by text)")
        queue.connection.execute("GRANT ALL ON loot TO PUBLIC")
        queue.connection.execute("""
            CREATE FUNCTION times(integer, numeric) RETURNS numeric LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.loot VALUES (current_user); RETURN 7; END $$;
            CREATE OPERATOR * (LEFTARG = integer, RIGHTARG = numeric, FUNCTION = times);
        """)
        queue.connection.execute("RESET ROLE")
        queue.insert("completed")
        queue.change(queue.insert("processing"), "status = 'completed', finished_at = clock_timestamp()")
        queue.connection.execute("DELETE FROM orders WHERE status = 'completed'")

        assert queue.value("SELECT count(*) FROM loot") == 0
        assert tallied(queue.connection) == counted(queue.connection)
    finally:
        queue.connection.execute("RESET ROLE; DROP OWNED BY orders_mallory CASCADE; DROP ROLE orders_mallory")


def test_no_function_of_the_owner_s_looks_where_others_may_create(queue: Queue) -> None:
    found = queue.connection.execute("""
        SELECT proname, proconfig
        FROM pg_proc
        WHERE prosecdef
          AND pronamespace = 'public'::regnamespace
    """).fetchall()

    assert len(found) == 4
    assert {tuple(settings) for _, settings in found} == {("search_path=pg_catalog, pg_temp",)}


def test_tally_is_folded_in_a_database_whose_tables_are_all_published(queue: Queue) -> None:
    queue.connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    try:
        queue.line(2)
        tally.fold(queue.connection)
        queue.connection.execute("UPDATE tally_marks SET at = at - INTERVAL '1 hour'")
        queue.line(1)
        tally.fold(queue.connection)
        tally.recount(queue.connection)
    finally:
        queue.connection.execute("DROP PUBLICATION everything")

    assert tally.read(queue.connection).counts[Status.PENDING] == 3


def test_truncating_in_an_old_snapshot_forgets_what_was_inserted_since(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.line(1)
    other = connect()
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM workers")
        queue.line(2)
        other.execute("TRUNCATE orders")

    assert tallied(queue.connection) == counted(queue.connection)


def test_recount_makes_good_what_was_written_with_the_triggers_off(queue: Queue) -> None:
    queue.line(2)
    with queue.connection.transaction():
        queue.connection.execute("SET LOCAL session_replication_role = replica")
        queue.insert("completed")
    assert tallied(queue.connection) != counted(queue.connection)

    tally.recount(queue.connection)

    assert tallied(queue.connection) == counted(queue.connection)


def test_lost_row_is_an_error_that_says_what_to_do(queue: Queue) -> None:
    queue.line(2)
    queue.connection.execute("DELETE FROM tally")

    with pytest.raises(TallyLostError, match="orders recount"):
        tally.read(queue.connection)

    tally.recount(queue.connection)
    assert tally.read(queue.connection).counts[Status.PENDING] == 2

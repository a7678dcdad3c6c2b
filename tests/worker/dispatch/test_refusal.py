import re
from collections.abc import Callable
from typing import Any

import pytest

from orders_worker.dispatch.dispatcher import WAITING_ENDS
from schema.runtime.connection import Connection


def refuse(connection: Connection, move: str, body: str = "RAISE 'no business with %', NEW.user_id") -> None:
    connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.user_id = 'eve' AND {move}) EXECUTE FUNCTION refuse()
    """)


def submit(connection: Connection, users: list[str]) -> None:
    for user in users:
        connection.execute(
            "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
            " VALUES (gen_random_uuid(), %s, '{tea}', 1)",
            (user,),
        )


@pytest.fixture
def until(connection: Connection, wait_until: Callable[..., Any]) -> Callable[[str, int], None]:
    """Wait until so many orders meet a condition."""

    def wait(condition: str, count: int) -> None:
        statement = f"SELECT count(*) FROM orders WHERE {condition}"
        wait_until(lambda: connection.execute(statement).fetchone() == (count,))

    return wait


def test_completion_that_the_database_refuses_fails_alone(
    start_worker: Callable[..., Any], connection: Connection, until: Callable[[str, int], None]
) -> None:
    refuse(connection, "NEW.status = 'completed'")
    submit(connection, ["eve" if number in {3, 17} else "ada" for number in range(40)])

    start_worker(ORDERS_CONCURRENCY=8, ORDERS_MAX_ATTEMPTS=2, ORDERS_BACKOFF_SECONDS=0)
    until("status IN ('completed', 'failed')", 40)

    ended = connection.execute(
        "SELECT user_id, status, attempt, count(*) FROM orders GROUP BY 1, 2, 3 ORDER BY 1"
    ).fetchall()
    errors = connection.execute("SELECT DISTINCT last_error FROM orders WHERE status = 'failed'").fetchall()
    assert ended == [("ada", "completed", 1, 38), ("eve", "failed", 2, 2)]
    assert [text.partition("\n")[0] for (text,) in errors] == ["RaiseException: no business with eve"]


@pytest.mark.parametrize("body", ["RETURN NULL", "RETURN OLD"], ids=["suppress", "turn back"])
def test_completion_that_a_trigger_undoes_waits_alone_and_the_trigger_is_named(
    start_worker: Callable[..., Any],
    connection: Connection,
    until: Callable[[str, int], None],
    wait_until: Callable[..., Any],
    *,
    body: str,
) -> None:
    refuse(connection, "NEW.status = 'completed'", body)
    submit(connection, ["eve" if number in {3, 17} else "ada" for number in range(40)])

    worker = start_worker(ORDERS_CONCURRENCY=8)
    until("status = 'completed'", 38)
    until("status = 'processing' AND user_id = 'eve' AND attempt = 1", 2)
    wait_until(lambda: re.search("WARNING trigger_may_undo_updates .*trigger=refuse", worker.log))
    connection.execute("DROP TRIGGER refuse ON orders")

    until("status = 'completed' AND attempt = 1", 40)


def test_worker_whose_completions_are_all_undone_does_not_claim_the_whole_line(
    start_worker: Callable[..., Any],
    connection: Connection,
    until: Callable[[str, int], None],
    wait_until: Callable[..., Any],
) -> None:
    refuse(connection, "NEW.status = 'completed'", "RETURN OLD")
    submit(connection, ["eve"] * 20)

    start_worker(ORDERS_CONCURRENCY=1, ORDERS_LEASE_SECONDS=1, ORDERS_POLL_SECONDS=0.05)
    until("status = 'processing'", WAITING_ENDS)
    row = connection.execute("SELECT clock_timestamp() + INTERVAL '1 second'").fetchone()
    beaten = "SELECT FROM workers WHERE heartbeat_at > %s"
    wait_until(lambda: connection.execute(beaten, row).rowcount)
    until("status = 'processing'", WAITING_ENDS)
    connection.execute("DROP TRIGGER refuse ON orders")

    until("status = 'completed' AND attempt = 1", 20)


@pytest.mark.parametrize("body", ["RAISE 'no'", "RETURN NULL"], ids=["raise", "suppress"])
def test_ending_that_the_database_refuses_keeps_no_other_from_being_written(
    start_worker: Callable[..., Any],
    connection: Connection,
    until: Callable[[str, int], None],
    wait_until: Callable[..., Any],
    *,
    body: str,
) -> None:
    refuse(connection, "NEW.status IN ('retrying', 'failed')", body)
    submit(connection, ["ada"] * 5 + ["eve"] + ["ada"] * 20)

    worker = start_worker(
        "def handle(order, context):\n    if order.user_id == 'eve': raise Reject('no')", ORDERS_CONCURRENCY=4
    )
    until("status = 'completed'", 25)
    event = "ending_refused" if "RAISE" in body else "trigger_may_undo_updates"
    wait_until(lambda: event in worker.log)
    assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    connection.execute("DROP TRIGGER refuse ON orders")
    until("status = 'failed'", 1)


def test_retry_that_the_database_refuses_keeps_no_rescue_from_happening(
    start_worker: Callable[..., Any], connection: Connection, wait_until: Callable[..., Any]
) -> None:
    submit(connection, ["eve", "ada"])
    connection.execute(
        "UPDATE orders SET status = 'retrying', attempt = 1, retry_at = clock_timestamp()"
        " WHERE user_id = 'eve'"
    )
    connection.execute(
        "INSERT INTO workers (worker_id, dead_at) VALUES ('gone', clock_timestamp());"
        "UPDATE orders SET status = 'processing', attempt = 1, worker_id = 'gone',"
        " started_at = clock_timestamp() WHERE user_id = 'ada'"
    )
    refuse(connection, "OLD.status = 'retrying'")

    worker = start_worker()
    wait_until(
        lambda: (
            connection.execute("SELECT status, attempt FROM orders WHERE user_id = 'ada'").fetchone()
            == ("completed", 2)
        )
    )

    wait_until(lambda: "chore_refused" in worker.log)

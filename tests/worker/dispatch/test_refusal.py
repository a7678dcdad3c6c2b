from collections.abc import Callable
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("RAISE 'no business with %', NEW.user_id", "RaiseException: no business with eve"),
        ("RETURN NULL", "the completion: a trigger or rule of the database undid it"),
        ("RETURN OLD", "the completion: a trigger or rule of the database undid it"),
    ],
    ids=["raise", "swallow", "turn back"],
)
def test_completion_that_the_database_refuses_fails_alone(
    start_worker: Callable[..., Any],
    connection: Connection,
    wait_until: Callable[..., Any],
    *,
    body: str,
    error: str,
) -> None:
    refuse(connection, "NEW.status = 'completed'", body)
    submit(connection, ["eve" if number in {3, 17} else "ada" for number in range(40)])

    start_worker(ORDERS_CONCURRENCY=8, ORDERS_MAX_ATTEMPTS=2, ORDERS_BACKOFF_SECONDS=0)
    wait_until(
        lambda: (
            connection.execute(
                "SELECT count(*) FROM orders WHERE status IN ('completed', 'failed')"
            ).fetchone()
            == (40,)
        )
    )

    ended = connection.execute(
        "SELECT user_id, status, attempt, count(*) FROM orders GROUP BY 1, 2, 3 ORDER BY 1"
    ).fetchall()
    errors = connection.execute("SELECT DISTINCT last_error FROM orders WHERE status = 'failed'").fetchall()
    assert ended == [("ada", "completed", 1, 38), ("eve", "failed", 2, 2)]
    assert [text.partition("\n")[0] for (text,) in errors] == [error]


@pytest.mark.parametrize("body", ["RAISE 'no'", "RETURN NULL"], ids=["raise", "swallow"])
def test_ending_that_the_database_refuses_keeps_no_other_from_being_written(
    start_worker: Callable[..., Any], connection: Connection, wait_until: Callable[..., Any], *, body: str
) -> None:
    refuse(connection, "NEW.status IN ('retrying', 'failed')", body)
    submit(connection, ["ada"] * 5 + ["eve"] + ["ada"] * 20)

    worker = start_worker(
        "def handle(order, context):\n    if order.user_id == 'eve': raise Reject('no')", ORDERS_CONCURRENCY=4
    )
    wait_until(
        lambda: (
            connection.execute("SELECT count(*) FROM orders WHERE status = 'completed'").fetchone() == (25,)
        )
    )
    wait_until(lambda: "ending_refused" in worker.log)
    assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    connection.execute("DROP TRIGGER refuse ON orders")
    wait_until(
        lambda: connection.execute("SELECT count(*) FROM orders WHERE status = 'failed'").fetchone() == (1,)
    )


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

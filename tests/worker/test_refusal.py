from collections.abc import Callable
from typing import Any

from schema.connection import Connection


def test_completion_that_the_database_refuses_fails_alone(
    start_worker: Callable[..., Any],
    connection: Connection,
    wait_until: Callable[..., Any],
) -> None:
    connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'no business with %', NEW.user_id; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.status = 'completed' AND NEW.user_id = 'eve') EXECUTE FUNCTION refuse()
    """)
    for number in range(40):
        connection.execute(
            "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
            " VALUES (gen_random_uuid(), %s, '{tea}', 1)",
            ("eve" if number in {3, 17} else "ada",),
        )

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
    assert errors[0][0].startswith("RaiseException: no business with eve")

from collections.abc import Callable
from typing import Any

from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartWorker


def turn(connection: Connection, *, read_only: bool, wait_until: Callable[..., Any]) -> None:
    """Have every session of the server, the open ones too, turn as a failover or a full disk turns them."""
    connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
    connection.execute("SELECT pg_reload_conf()")
    wait_until(
        lambda: (
            connection.execute("SHOW default_transaction_read_only").fetchone()
            == ("on" if read_only else "off",)
        )
    )


def test_server_that_turned_read_only_refuses_no_order_and_is_left_until_it_is_writable_again(
    start_worker: StartWorker,
    private_url: str,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    with Connection.open(private_url, name="test") as connection:
        queue = Queue(connection, wait_until)
        worker = start_worker("handle = gated", url=private_url, ORDERS_CONCURRENCY=2)
        queue.submit(2)
        wait_until(lambda: len(notes("begun")) == 2)

        turn(connection, read_only=True, wait_until=wait_until)
        open_gate()
        for event in (
            "connection=dispatcher error",
            "connection=housekeeping error",
            "connection=heartbeat error",
        ):
            wait_until(lambda: event in worker.log)  # noqa: B023
        turn(connection, read_only=False, wait_until=wait_until)
        queue.until_all("completed")

        assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
        assert queue.one("SELECT count(*) FROM attempts") == 0
        assert "refused" not in worker.log

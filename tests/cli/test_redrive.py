"""`orders redrive`, of one and of many."""

import os
import pty
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from schema.queue.redrive import LIMIT
from schema.runtime.connection import Connection
from schema.states import Outcome
from tests.cli.conftest import ORDERS
from tests.rows import Queue

Orders = Callable[..., "subprocess.CompletedProcess[str]"]
Facts = Callable[..., Any]


def states(queue: Queue) -> list[str]:
    rows = queue.connection.execute("SELECT status FROM orders ORDER BY created_at")
    return [status for (status,) in rows]


def test_one_dead_letter_goes_back_in_line_with_as_many_attempts_as_are_usual(
    orders: Orders, queue: Queue
) -> None:
    usual, configured, named = (queue.insert("failed", attempt=5) for _ in range(3))

    said = orders("redrive", usual).stdout
    orders("redrive", configured, ORDERS_MAX_ATTEMPTS="7")
    orders("redrive", named, "--attempts", 2, ORDERS_MAX_ATTEMPTS="7")

    assert said == f"order {usual} is back in line\n"
    assert [queue.row(order_id).attempt_limit for order_id in (usual, configured, named)] == [10, 12, 7]
    assert states(queue) == ["pending"] * 3


def test_one_redriven_order_comes_as_a_document(facts: Facts, queue: Queue) -> None:
    order_id = queue.insert("failed")

    found = facts("redrive", order_id)

    assert (found["order_id"], found["status"], found["finished_at"]) == (str(order_id), "Pending", None)


def test_an_order_that_has_not_failed_is_refused_with_its_state(orders: Orders, queue: Queue) -> None:
    order_id = queue.insert("cancelled")

    done = orders("redrive", order_id, status=1)

    assert done.stderr == f"order {order_id} is cancelled: it can't be moved by redrive\n"


def test_a_bad_number_of_attempts_in_the_settings_is_named(orders: Orders, queue: Queue) -> None:
    done = orders("redrive", queue.insert("failed"), status=2, ORDERS_MAX_ATTEMPTS="many")

    assert done.stderr.startswith("ORDERS_MAX_ATTEMPTS is 'many'")


def test_all_that_failed_are_moved_and_those_skipped_are_counted(
    orders: Orders, queue: Queue, connect: Callable[[], Connection]
) -> None:
    locked = queue.insert("failed")
    for status in ("failed", "completed", "failed"):
        queue.insert(status)
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", [locked])

    done = orders("redrive", "--all-failed", "--yes", "--attempts", 3)

    assert (done.stdout, done.stderr) == ("2 failed orders moved, 1 skipped\n", "")
    assert states(queue) == ["failed", "pending", "completed", "pending"]


def test_facts_about_many_come_as_one_document(facts: Facts, queue: Queue) -> None:
    queue.insert("failed")

    counted = facts("redrive", "--all-failed", "--dry-run")
    moved = facts("redrive", "--all-failed", "--yes")
    again = facts("redrive", "--all-failed", "--yes")

    assert counted == {"matches": 1}
    assert moved == {"matches": 1, "moved": 1, "skipped": 0}
    assert again == {"matches": 0, "moved": 0, "skipped": 0}


def test_dry_run_counts_and_moves_nothing(orders: Orders, queue: Queue) -> None:
    queue.insert("failed", last_error="OSError: no shop")
    queue.insert("failed", last_error="ValueError: no tea")
    before = queue.snapshot()

    counted = orders("redrive", "--all-failed", "--dry-run")
    some = orders("redrive", "--all-failed", "--dry-run", "--error-prefix", "OSError")

    assert counted.stdout == "2 failed orders would be moved\n"
    assert some.stdout == "1 failed order would be moved\n"
    assert queue.snapshot() == before


def test_where_nobody_can_be_asked_nothing_is_moved_without_yes(orders: Orders, queue: Queue) -> None:
    queue.insert("failed")

    done = orders("redrive", "--all-failed", status=2)

    assert "say --yes" in done.stderr
    assert states(queue) == ["failed"]


@pytest.mark.parametrize("option", [["--error-prefix", "x"], ["--dry-run"], ["--yes"], ["--all-failed"]])
def test_what_is_for_many_does_not_go_with_one(orders: Orders, queue: Queue, option: list[str]) -> None:
    orders("redrive", queue.insert("failed"), *option, status=2)

    assert states(queue) == ["failed"]


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y", 0, "pending"), ("n", 1, "failed"), ("", 1, "failed")]
)
def test_a_terminal_is_asked_with_the_number(
    database_url: str, queue: Queue, answer: str, status: int, left: str
) -> None:
    queue.insert("failed")
    ours, its = pty.openpty()
    os.write(ours, f"{answer}\n".encode())

    done = subprocess.run(
        [*ORDERS, "redrive", "--all-failed"],
        env={**os.environ, "DATABASE_URL": database_url},
        stdin=its,
        capture_output=True,
        text=True,
    )
    os.close(its)
    os.close(ours)

    assert "Put 1 failed order back in line? [y/N]: " in done.stderr
    assert done.returncode == status
    assert states(queue) == [left]


@pytest.mark.direct  # Nothing is heard through a pooler.
@pytest.mark.parametrize("which", ["one", "all"])
def test_idle_workers_are_woken(
    orders: Orders, queue: Queue, connect: Callable[[], Connection], which: str
) -> None:
    order_id = queue.insert("failed")
    listener = connect()
    listener.execute("LISTEN orders")

    orders("redrive", *([order_id] if which == "one" else ["--all-failed", "--yes"]))

    assert list(listener.notifies(timeout=5, stop_after=1))


def test_what_was_moved_stays_moved_when_the_database_refuses_the_rest(
    orders: Orders, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, finished_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'failed', clock_timestamp()"
        " FROM generate_series(1, %s)",
        [LIMIT + 1],
    )
    connection.execute("""
        CREATE FUNCTION users_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM orders WHERE in_line) >= 1000 THEN RAISE 'not now'; END IF; RETURN NEW;
        END $$;
        CREATE TRIGGER users_own BEFORE UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION users_own();
    """)

    stopped = orders("redrive", "--all-failed", "--yes", status=1)
    connection.execute("DROP FUNCTION users_own CASCADE")
    done = orders("redrive", "--all-failed", "--yes")

    assert "stopped after 1,000 of 1,001 failed orders" in stopped.stderr
    assert "not now): give the same command again" in stopped.stderr
    assert done.stdout == "1 failed order moved, 0 skipped\n"


def test_orders_that_were_redriven_are_served_in_turn(orders: Orders, queue: Queue) -> None:
    """Fail, redrive, claim and complete, with orders that come in between; then judge the record."""
    queue.worker()
    queue.line(3)
    for claim in queue.claim(free=3):
        queue.end(claim.fence, outcome=Outcome.REJECTED, error="no tea")
    first, *_ = queue.connection.execute("SELECT order_id FROM orders ORDER BY seq").fetchall()
    queue.line(2)
    orders("redrive", *first)
    queue.line(2)
    orders("redrive", "--all-failed", "--yes")
    queue.line(1)
    claimed = queue.claim(free=10)

    queue.exchange(finished=[claim.fence for claim in claimed])

    assert [claim.attempt for claim in claimed] == [1, 1, 2, 1, 1, 2, 2, 1]
    assert orders("verify-fcfs").stdout == "11 claims on 8 orders: no inversion, no double start\n"

"""`orders show`, `list` and `cancel`."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from schema.reports.show import show
from schema.runtime.connection import Connection
from tests.cli.conftest import ORDERS
from tests.rows import Queue

Orders = Callable[..., "subprocess.CompletedProcess[str]"]
Facts = Callable[..., Any]

HOSTILE = "ada \x1b[2J\r\n\t\x07\x9b1A \u202e"
"""A text that would clear the screen, go up a line and turn the writing round."""

UNARMED = r"ada \u001b[2J\r\n\t\u0007\u009b1A \u202e"


def on_terminal(*arguments: str, url: str, columns: int = 80) -> list[str]:
    """Return the lines that a command prints on a terminal of so many columns."""
    ours, its = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        subprocess.run(
            ["/bin/sh", "-c", 'stty cols "$0"; exec "$@"', str(columns), *ORDERS, *arguments],
            env={**os.environ, "DATABASE_URL": url},
            stdin=its,
            stdout=its,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        os.close(its)
        shown = b""
        try:
            while block := screen.read(65_536):
                shown += block
        except OSError:  # nobody has the terminal open any more
            pass
    return shown.decode().replace("\r\n", "\n").splitlines()


def test_show_has_each_fact_on_a_line_of_its_own(orders: Orders, queue: Queue) -> None:
    order_id = queue.insert("failed", item_ids=["tea", "milk"], total_amount="250.75", worker_id="w-1")
    queue.change(order_id, "created_at = '2031-05-01 14:00+02'")

    lines = orders("show", order_id).stdout.splitlines()

    named = dict(line.split(maxsplit=1) for line in lines)
    assert named == {
        "order_id": str(order_id),
        "status": "Failed",
        "user_id": "ada",
        "item_ids": "tea, milk",
        "total_amount": "250.75",
        "seq": str(queue.row(order_id).seq),
        "attempt": "5",
        "attempt_limit": "5",
        "worker_id": "w-1",
        "created_at": "2031-05-01T12:00:00.000000Z",
        "queued_at": named["queued_at"],
        "started_at": "-",
        "finished_at": named["finished_at"],
        "retry_at": "-",
        "cancel_requested_at": "-",
        "last_error": "it broke",
    }
    assert len({line.index(value) for line, value in zip(lines, named.values(), strict=True)}) == 1


def test_show_as_json_is_the_order_as_the_api_has_it(orders: Orders, queue: Queue) -> None:
    order_id = queue.insert("failed", total_amount="250.70")

    done = orders("show", order_id, "--json")

    assert done.stdout == f"{show(queue.connection, [order_id])[order_id]}\n"
    assert '"total_amount":250.70,' in done.stdout


@pytest.mark.parametrize("command", ["show", "cancel", "redrive"])
def test_an_unknown_order_is_one_line(orders: Orders, command: str) -> None:
    order_id = uuid4()

    done = orders(command, order_id, "--json", status=1)

    assert (done.stdout, done.stderr) == ("", f"there is no order {order_id}\n")


def test_texts_of_strangers_can_not_move_the_cursor(orders: Orders, queue: Queue) -> None:
    order_id = queue.insert("failed", user_id=HOSTILE, item_ids=[HOSTILE], last_error=HOSTILE)

    shown, listed = orders("show", order_id).stdout, orders("list").stdout
    documents = [orders("show", order_id, "--json").stdout, orders("list", "--json").stdout]

    assert [UNARMED in line for line in shown.splitlines()].count(True) == 3
    _, order, error = listed.splitlines()
    assert (UNARMED in order, error) == (True, r"  ada \u001b[2J\r")  # an error's first line
    assert all(line.isprintable() for text in (shown, listed, *documents) for line in text.splitlines())
    one, (other,) = json.loads(documents[0]), json.loads(documents[1])["data"]
    assert one == other
    assert (one["user_id"], one["item_ids"], one["last_error"]) == (HOSTILE, [HOSTILE], HOSTILE)


def test_long_texts_keep_to_the_width_of_a_terminal(database_url: str, queue: Queue) -> None:
    words = "the shop is closed " * 20
    order_id = queue.insert("failed", user_id="u" * 255, item_ids=["i" * 200, "tea"], last_error=words)

    shown = on_terminal("show", str(order_id), url=database_url)
    header, order, error = on_terminal("list", url=database_url)

    assert max(map(len, [*shown, header, order, error])) == 80
    values = "".join(line[21:] for line in shown).replace(" ", "")
    assert all(text.replace(" ", "") in values for text in ("u" * 255, "i" * 200 + ",tea", words))
    assert order.startswith(f"{order_id}  Failed  ")
    assert order.endswith("uuu…")
    assert error.startswith("  the shop is closed")
    assert error.endswith("…")


def test_list_has_a_line_for_each_order_and_one_for_what_went_wrong(orders: Orders, queue: Queue) -> None:
    failed = queue.insert("failed", user_id="bob", last_error="no tea")
    done = queue.insert("completed", last_error="no milk at first")
    for order_id in (failed, done):
        queue.change(order_id, "created_at = '2031-05-01 14:00+02'")
    first, second = sorted([(failed, "Failed    "), (done, "Completed ")], reverse=True)

    lines = orders("list").stdout.splitlines()

    assert [line for line in lines[1:] if not line.startswith("  ")] == [
        f"{order_id}  {status}  2031-05-01 12:00  {'bob' if order_id == failed else 'ada'}"
        for order_id, status in (first, second)
    ]
    assert [line for line in lines if line.startswith("  ")] == ["  no tea"]


def test_pages_of_a_list_follow_one_another(orders: Orders, facts: Facts, queue: Queue) -> None:
    oldest, *_, newest = (queue.insert("failed", user_id="ada") for _ in range(5))
    queue.insert("cancelled", user_id="ada")
    queue.insert("failed", user_id="bob")
    filters = ["--status", "failed", "--status", "COMPLETED", "--user", "ada", "--limit", 3]

    first = orders("list", *filters)
    more, _, cursor = first.stderr.strip().rpartition(" ")
    second = orders("list", *filters, "--after", cursor)
    document = facts("list", *filters)

    assert more == "more: --after"
    assert document["next"] == cursor
    assert [order["status"] for order in document["data"]] == ["Failed"] * 3
    assert document["data"][0]["order_id"] == str(newest)
    assert str(oldest) in second.stdout
    assert second.stderr == ""
    assert facts("list", *filters, "--after", cursor)["next"] is None


def test_list_of_nothing_says_so(orders: Orders, facts: Facts) -> None:
    assert orders("list").stdout == "no orders\n"
    assert facts("list") == {"data": [], "next": None}


def test_list_after_no_end_of_a_page_is_bad_usage(orders: Orders) -> None:
    done = orders("list", "--after", "yesterday", status=2)

    assert "'yesterday' is not the end of a page of this list" in done.stderr


@pytest.mark.parametrize("status", ["pending", "retrying"])
def test_cancel_withdraws_an_order_that_waits(orders: Orders, queue: Queue, status: str) -> None:
    order_id = queue.insert(status)

    done = orders("cancel", order_id)

    assert done.stdout == f"order {order_id} is cancelled\n"
    assert queue.status(order_id) == "cancelled"


def test_cancel_asks_the_worker_of_an_order_that_is_being_worked_on(
    facts: Facts, orders: Orders, queue: Queue
) -> None:
    order_id = queue.insert("processing")

    asked = orders("cancel", order_id)
    document = facts("cancel", order_id)

    assert asked.stdout == f"order {order_id} is being worked on: its worker is asked to cancel it\n"
    assert (document["order_id"], document["status"]) == (str(order_id), "Processing")
    assert document["cancel_requested_at"] is not None


def test_cancel_of_a_final_order_is_refused_with_its_state(orders: Orders, queue: Queue) -> None:
    order_id = queue.insert("completed")

    done = orders("cancel", order_id, status=1)

    assert done.stderr == f"order {order_id} is completed: it can't be moved by cancel\n"


@pytest.mark.parametrize(("command", "status"), [("cancel", "pending"), ("redrive", "failed")])
def test_a_locked_order_is_refused_at_once(
    orders: Orders, queue: Queue, connect: Callable[[], Connection], command: str, status: str
) -> None:
    order_id = queue.insert(status)
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", [order_id])

    done = orders(command, order_id, status=1)

    assert done.stderr == f"order {order_id} is locked by another transaction: try again later\n"

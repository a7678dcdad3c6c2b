"""`orders sql`: the statements, as they are run."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from schema.cli.sql import statements
from schema.embedded import binaries
from schema.queue import cancel, exchange, rescue, tally
from schema.reports import lists
from tests.rows import Queue

Orders = Callable[..., "subprocess.CompletedProcess[str]"]
Facts = Callable[..., Any]


def test_every_statement_has_a_name_of_its_own_and_a_line_that_says_what_it_is_for(orders: Orders) -> None:
    lines = orders("sql").stdout.splitlines()

    names = [line.split()[0] for line in lines]
    assert {"exchange", "exchange.RECOVER_CLAIMS", "cancel", "rescue.SWEEP", "lists.PENDING", "show"} <= {
        *names
    }
    assert len(names) == len({*names})
    assert all(len(line.split()) > 2 for line in lines)
    # Parts of statements, and words.
    assert not {
        name for name in names if name.rpartition(".")[2] in {"MOVE", "NEXT_STATE", "FLOOR", "CHANNEL"}
    }


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("exchange", exchange.EXCHANGE),
        ("rescue.SWEEP", rescue.SWEEP),
        ("tally.recount", tally._RECOUNT),
        ("lists.NEWEST", lists._NEWEST),
    ],
)
def test_a_statement_is_printed_whole_and_to_the_letter(
    orders: Orders, facts: Facts, name: str, constant: str
) -> None:
    binds = facts("sql", name)["binds"]
    purpose, bound, *statement = orders("sql", name).stdout.splitlines()

    text = "\n".join(statement).removesuffix(";")
    for bind in binds:
        text = text.replace(f":'{bind}'", f"%({bind})s")
    assert text == constant.strip()
    assert purpose.startswith("-- ")
    assert bound == f"-- binds: {', '.join(binds) or 'nothing'}"


def test_a_statement_runs_in_psql_with_its_binds(orders: Orders, queue: Queue, database_url: str) -> None:
    order_id = queue.insert()

    done = subprocess.run(
        [binaries.find() / "psql", "-qAt", "-d", database_url, "-v", f"order_id={order_id}", "-f", "-"],
        input=orders("sql", "cancel").stdout,
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ("cancelled\n", "")
    assert queue.status(order_id) == "cancelled"


@pytest.mark.direct  # What it prepares stays in the session.
def test_every_statement_is_one_to_the_database(queue: Queue) -> None:
    for statement in statements():
        text = statement.sql
        for number, bind in enumerate(statement.binds, 1):
            text = text.replace(f":'{bind}'", f"${number}")
        if text.startswith(("WITH", "SELECT", "INSERT", "UPDATE", "DELETE")):
            queue.connection.execute(f"PREPARE statement AS {text}", prepare=False)
            queue.connection.execute("DEALLOCATE statement")


def test_an_unknown_name_is_bad_usage(orders: Orders) -> None:
    assert "`orders sql` lists what there is" in orders("sql", "cancle", status=2).stderr
    assert cancel._CANCEL.strip() in orders("sql", "CANCEL").stdout.replace(":'order_id'", "%(order_id)s")

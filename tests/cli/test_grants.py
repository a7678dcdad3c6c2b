"""`orders grants`: what it prints and applies, and that no role has more than it needs."""

import math
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schema import grants, revision
from schema.errors import AccessDeniedError, OrdersError, StatementRefusedError
from schema.intake import importer
from schema.intake.files import Format
from schema.order import Fence, NewOrder
from schema.queue import (
    batch,
    completion,
    due,
    endings,
    exchange,
    idempotency,
    rescue,
    retries,
    submit,
    tally,
    wake,
    workers,
)
from schema.queue.endings import Ending
from schema.reports import audit, lists, metrics, show, triggers
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from schema.uuid7 import uuid7
from tests.cli.conftest import call
from tests.roles import KINDS, Guarded

Orders = Callable[..., "subprocess.CompletedProcess[str]"]

ORDER = NewOrder("ada", ("tea",), Decimal(1))
ODD = 'Shop "API"; --'


@pytest.fixture
def odd_role(connection: Connection) -> Iterator[str]:
    """A role whose name has to be quoted."""
    quoted = '"' + ODD.replace('"', '""') + '"'
    connection.execute(f"DROP ROLE IF EXISTS {quoted}; CREATE ROLE {quoted}")
    yield ODD
    connection.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def may_insert(connection: Connection, role: str) -> object:
    return connection.one("SELECT has_column_privilege(%s, 'orders', 'user_id', 'INSERT')", [role])[0]


def test_statements_are_printed_for_psql_and_nothing_is_granted(
    orders: Orders, connection: Connection, odd_role: str
) -> None:
    done = orders("grants", "--api", odd_role)

    assert done.stderr == ""
    assert may_insert(connection, odd_role) is False
    assert (
        'INSERT (order_id, user_id, item_ids, total_amount) ON TABLE "public"."orders" TO "Shop'
        in done.stdout
    )
    for line in done.stdout.splitlines():
        connection.execute(line)
    assert may_insert(connection, odd_role) is True


def test_statements_are_run_with_apply_and_may_be_again(
    facts: Callable[..., Any], connection: Connection, odd_role: str
) -> None:
    first, second = (facts("grants", "--worker", odd_role, "--reader", odd_role, "--apply") for _ in range(2))

    assert first == second
    assert first["applied"] is True
    assert len(first["statements"]) == 4 + len(grants.WORKER) + len(grants.READER)
    assert connection.one("SELECT has_table_privilege(%s, 'workers', 'DELETE')", [odd_role]) == (True,)
    assert may_insert(connection, odd_role) is False


@pytest.mark.parametrize("apply", [[], ["--apply"]])
def test_unknown_role_is_named_in_one_line_and_nothing_is_granted(
    orders: Orders, connection: Connection, odd_role: str, apply: list[str]
) -> None:
    done = orders("grants", "--api", odd_role, "--worker", "nobody\nhere", *apply, status=1)

    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert r"there is no role 'nobody\nhere'" in line
    assert may_insert(connection, odd_role) is False


def test_no_role_is_bad_usage(orders: Orders) -> None:
    assert "--api, --worker or --reader" in orders("grants", "--apply", status=2).stderr


def test_role_that_may_not_grant_is_told_so_and_grants_nothing(guarded: Guarded) -> None:
    guarded.grant("api")

    done = call("grants", "--reader", "reader", "--apply", url=guarded.url_of("api"))

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "connect as the owner" in line


def test_tables_of_a_schema_of_their_own_are_granted_there(guarded: Guarded) -> None:
    path = 'SET search_path = "Shop\'s"'
    guarded.execute(f'ALTER SCHEMA public RENAME TO "Shop\'s"; ALTER ROLE api {path}')
    with Connection.open(guarded.url, name="test") as owner:
        owner.execute(path)

        for each in grants.grants(owner, "api", grants.API):
            owner.execute(each.statement)

        owner.execute('ALTER SCHEMA "Shop\'s" RENAME TO shop; ALTER ROLE api SET search_path = shop')
    with Connection.open(guarded.url_of("api"), name="test") as role:
        role.one("SELECT count(*) FROM orders")
    guarded.execute("ALTER SCHEMA shop RENAME TO public; ALTER ROLE api RESET search_path")


def as_api(connection: Connection, folder: Path) -> None:
    """Run each statement of the API's and of `orders import`."""
    revision.check(connection)
    order_id = submit.submit(connection, ORDER)
    submit.submit_all(connection, [ORDER, ORDER])
    for _ in range(2):
        idempotency.submit_once(connection, ORDER, key="one")
        batch.submit_batch(connection, [ORDER], key="many")
    batch.submit_batch(connection, [ORDER])
    show.show(connection, [order_id])
    metrics.read(connection, simulated_seconds=2)
    tally.fold(connection)
    wake.notify(connection)
    file = folder / "orders.ndjson"
    file.write_text('{"user_id": "ada", "item_ids": ["tea"], "total_amount": 1}\n')
    for again in (False, True):
        importer.import_file(
            connection,
            file,
            kind=Format.NDJSON,
            rejects_path=folder / "rejected",
            again=again,
            on_chunk=lambda _: None,
        )


def as_worker(connection: Connection, _: Path) -> None:
    """Run each statement of a worker's: an empty line asks for the same privileges."""
    revision.check(connection)
    triggers.suspects(connection)
    triggers.row_security(connection)
    me = workers.register(
        connection, host="h", pid=1, slots=1, lease_seconds=10, handler="shop:work", version="1"
    )
    fence = Fence(uuid7(), 1)
    workers.hold_session(connection, me.worker_id)
    workers.beat(connection, me.worker_id, held=[], oldest_claim_at=me.at)
    exchange.exchange(
        connection, me.worker_id, finished=[fence], free=1, idle=True, floor=0, since=me.at, max_attempts=5
    )
    exchange.recover_claims(connection, me.worker_id, held=[], since=me.at)
    endings.end(connection, me.worker_id, endings=[Ending(fence, Outcome.RAISED)])
    completion.complete(connection, me.worker_id, fence=fence)
    completion.claim_state(connection, me.worker_id, fence=fence)
    completion.is_free(connection, me.worker_id, fence=fence)
    due.due(connection)
    rescue.declare_dead(connection, watched_seconds=math.inf)
    rescue.sweep(connection)
    rescue.mark_swept(connection)
    rescue.patrol(connection, after=None)
    retries.return_due(connection)
    tally.fold(connection)
    idempotency.prune(connection)
    workers.prune(connection)
    wake.listen(connection)
    workers.leave(connection, me.worker_id)


def as_reader(connection: Connection, _: Path) -> None:
    """Run the reports."""
    revision.check(connection)
    lists.page(connection)
    lists.page(connection, statuses=[Status.PROCESSING])
    show.show(connection, [uuid7()])
    metrics.read(connection, simulated_seconds=2)
    audit.check(connection)


WORK: Mapping[str, Callable[[Connection, Path], None]] = {
    "api": as_api,
    "worker": as_worker,
    "reader": as_reader,
}


def pieces(privileges: grants.Privileges) -> Iterator[tuple[str, str]]:
    """Yield each privilege on a table, or on a column of it, with the table."""
    for table, listed in privileges.items():
        for each in listed:
            name, *columns = re.findall(r"\w+", each)
            for column in columns:
                yield f"{name} ({column})", table
            if not columns:
                yield name, table


def lacks_something(work: Callable[[Connection, Path], None], role: Connection, folder: Path) -> bool:
    try:
        work(role, folder)
    except StatementRefusedError as error:
        if not error.is_forbidden:
            raise
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_each_role_has_all_it_needs_and_nothing_that_it_does_not(
    guarded: Guarded, tmp_path: Path, kind: str
) -> None:
    guarded.grant(kind)
    needless = []
    with ExitStack() as stack:
        owner, role = (
            stack.enter_context(Connection.open(url, name="test"))
            for url in (guarded.url, guarded.url_of(kind))
        )
        WORK[kind](role, tmp_path)
        for privilege, table in pieces(KINDS[kind]):
            owner.execute(f"REVOKE {privilege} ON {table} FROM {kind}")
            if not lacks_something(WORK[kind], role, tmp_path):
                needless.append((privilege, table))
            owner.execute(f"GRANT {privilege} ON {table} TO {kind}")
        WORK[kind](role, tmp_path)

    assert needless == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("privilege", ["USAGE ON SCHEMA public", "CONNECT ON DATABASE"])
def test_no_role_gets_to_the_tables_unless_it_is_let_in(
    guarded: Guarded, tmp_path: Path, kind: str, privilege: str
) -> None:
    guarded.grant(kind)
    with Connection.open(guarded.url, name="test") as owner:
        (database,) = owner.one("SELECT current_database()")
    on = f"{privilege} {database}" if privilege.endswith("DATABASE") else privilege

    guarded.execute(f"REVOKE {on} FROM {kind}")

    with pytest.raises(OrdersError) as caught, Connection.open(guarded.url_of(kind), name="test") as role:
        WORK[kind](role, tmp_path)
    assert isinstance(caught.value, AccessDeniedError | revision.SchemaOutdatedError)


PLACE = (
    "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
    " VALUES (gen_random_uuid(), 'ada', '{tea}', 1)"
)

FORBIDDEN = {
    "api": [
        "UPDATE orders SET total_amount = 0",
        "DELETE FROM orders",
        "TRUNCATE orders",
        PLACE.replace(") VALUES", ", status) VALUES").replace("1)", "1, 'pending')"),
        "UPDATE queue SET paused_at = clock_timestamp()",
        "DELETE FROM workers",
        "SELECT FROM attempts",
    ],
    "worker": [
        PLACE,
        "UPDATE orders SET total_amount = 0",
        "UPDATE orders SET seq = 1",
        "DELETE FROM orders",
        "UPDATE idempotency_keys SET order_id = gen_random_uuid()",
        "UPDATE attempts SET error = NULL",
        "UPDATE queue SET paused_at = clock_timestamp()",
        "SELECT FROM imports",
    ],
    "reader": [
        PLACE,
        *(f"DELETE FROM {table}" for table in {**grants.API, **grants.WORKER}),
        "UPDATE orders SET status = 'pending'",
        "SELECT FROM orders FOR UPDATE",
        "UPDATE queue SET paused_at = clock_timestamp()",
        "SELECT FROM idempotency_keys",
        "CREATE TABLE mine ()",
        "SELECT nextval('orders_seq_seq')",
    ],
}


@pytest.mark.parametrize(
    ("kind", "statement"), [(kind, each) for kind, found in FORBIDDEN.items() for each in found]
)
def test_role_may_not(guarded: Guarded, kind: str, statement: str) -> None:
    guarded.grant("api", "worker", "reader")

    with (
        Connection.open(guarded.url_of(kind), name="test") as role,
        pytest.raises(StatementRefusedError) as caught,
    ):
        role.execute(statement)

    assert caught.value.is_forbidden


def test_reader_s_commands_answer_and_all_others_are_refused(guarded: Guarded) -> None:
    guarded.grant("reader")
    with Connection.open(guarded.url, name="test") as owner:
        order_id = submit.submit(owner, ORDER)

    for command in (["list"], ["show", order_id], ["verify-fcfs"]):
        done = call(*command, url=guarded.url_of("reader"))
        assert (done.returncode, done.stderr) == (0, ""), done
    for command in (["pause"], ["resume"], ["cancel", order_id], ["redrive", order_id], ["recount"]):
        done = call(*command, url=guarded.url_of("reader"))
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert "permission denied" in line
        assert "orders grants" in line


def test_import_is_the_api_s_role_s(guarded: Guarded, tmp_path: Path) -> None:
    guarded.grant("api")
    file = tmp_path / "orders.ndjson"
    file.write_text('{"user_id": "ada", "item_ids": ["tea"], "total_amount": 1}\n')

    done = call("import", file, url=guarded.url_of("api"))

    assert (done.returncode, done.stderr) == (0, "")

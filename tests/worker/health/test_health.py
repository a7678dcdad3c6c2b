"""Real workers under faults that would stall them in silence."""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from psycopg import conninfo

from schema.embedded.server import Server
from schema.queue.pause import pause
from schema.runtime.connection import Connection
from tests.conftest import wait_until
from tests.wire import Crossing, Wire
from tests.worker.conftest import Queue, StartWorker, Worker

SECRET = "s3cr3t"  # noqa: S105 - to be found nowhere

WRITES = """
def handle(order, context):
    context.transaction()
"""

HOLDS_ITS_CONNECTION = """
def handle(order, context):
    note(order)
    context.transaction().execute("SELECT pg_sleep(30)")
"""


def address(worker: Worker) -> str | None:
    found = re.search(r"health_served .*url=http://(\S+)", worker.log)
    return found[1] if found else None


def ask(worker: Worker, path: str = "/readyz") -> tuple[int, Any]:
    """Return status and document; an answer that takes a second is none."""
    where = address(worker)
    assert where is not None, worker.log
    with closing(http.client.HTTPConnection(where, timeout=1)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())


def reasons(worker: Worker) -> list[str]:
    reasons: list[str] = ask(worker)[1].get("reasons", [])
    return reasons


@pytest.fixture
def probed(start_worker: StartWorker) -> Callable[..., Worker]:
    """Start a worker that answers probes."""

    def start(*arguments: str, **settings: Any) -> Worker:
        worker = start_worker(*arguments, ORDERS_HEALTH_PORT=0, **settings)
        wait_until(lambda: address(worker))
        assert ask(worker) == (200, {"status": "ready"})
        return worker

    return start


@pytest.fixture
def pass_seconds(queue: Queue) -> Callable[[int], None]:
    """Wait as long as a stall would need to be seen."""

    def wait(seconds: int) -> None:
        since = queue.one("SELECT clock_timestamp()")
        over = "SELECT clock_timestamp() > %s + make_interval(secs => %s)"
        wait_until(lambda: queue.one(over, since, seconds))

    return wait


class Fault:
    """Whose connections stand still, or are refused, while it lasts."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._over.set()
        self._stalled = ""
        self._refused = ""

    def begin(self, *, stalled: str = "", refused: str = "") -> None:
        self._stalled, self._refused = stalled, refused
        self._over.clear()

    def end(self) -> None:
        self._refused = ""
        self._over.set()

    def guard(self, crossing: Crossing) -> bool:
        if crossing.name == self._stalled:
            self._over.wait()
        return crossing.name != self._refused


@pytest.fixture
def faulty(database_url: str) -> Iterator[Callable[[], tuple[Fault, str]]]:
    """Lay a wire to the database for one worker; return its fault and its URL."""
    with ExitStack() as stack:

        def lay() -> tuple[Fault, str]:
            fault = Fault()
            wire = stack.enter_context(Wire(database_url, fault.guard))
            stack.callback(fault.end)
            return fault, wire.url

        yield lay


@pytest.mark.direct  # Behind a pooler a worker's connections can't be told apart.
def test_connection_that_stalls_or_is_refused_makes_its_worker_alone_unhealthy_until_the_fault_ends(
    probed: Callable[..., Worker], queue: Queue, faulty: Any
) -> None:
    faults = {
        "exchange_stalled": {"stalled": "orders-dispatcher"},
        "heartbeat_lost": {"stalled": "orders-heartbeat"},
        "housekeeping_lost": {"stalled": "orders-housekeeping"},
        "no_handler_connection": {"refused": "orders-handler"},
    }
    ailing = {}
    for reason, fault in faults.items():
        wire, url = faulty()
        ailing[reason] = (wire, fault, probed(WRITES, url=url, ORDERS_LEASE_SECONDS=10))
    well = probed(WRITES)
    for wire, fault, _ in ailing.values():
        wire.begin(**fault)

    def found() -> dict[str, list[str]]:
        # Somebody has to need a handler's connection, and anybody may claim the order.
        if not queue.counts().get("pending"):
            queue.submit()
        return {reason: reasons(worker) for reason, (_, _, worker) in ailing.items()}

    wait_until(lambda: found() == {reason: [reason] for reason in faults})
    assert ask(well) == (200, {"status": "ready"})
    for wire, _, worker in ailing.values():
        assert ask(worker, "/healthz") == (200, {"status": "up"})
        wait_until(lambda: "worker_unhealthy" in worker.log)  # noqa: B023
        wire.end()
    wait_until(lambda: not any(reasons(worker) for _, _, worker in ailing.values()))
    queue.until_all("completed")

    for reason, (_, _, worker) in ailing.items():
        wait_until(lambda: "INFO worker_healthy" in worker.log)  # noqa: B023
        worker_id = re.findall(r"worker_registered worker_id=(\S+)", worker.log)[-1]
        assert re.search(rf"ERROR worker_unhealthy worker_id={worker_id} reasons={reason} ", worker.log)
    assert "worker_unhealthy" not in well.log


TRIGGERS = {"RETURN NULL": "claims_suppressed", "RAISE 'not today'": "exchange_stalled"}


@pytest.mark.parametrize(("body", "reason"), TRIGGERS.items(), ids=TRIGGERS.values())
def test_trigger_that_keeps_the_head_of_the_line_from_being_claimed_is_logged_also_without_probes(
    start_worker: StartWorker, queue: Queue, body: str, reason: str
) -> None:
    queue.connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.status = 'processing') EXECUTE FUNCTION refuse();
    """)
    worker = start_worker(ORDERS_CONCURRENCY=2)
    queue.submit()

    wait_until(lambda: f"reasons={reason}" in worker.log)
    queue.connection.execute("DROP TRIGGER refuse ON orders")
    queue.until_all("completed")
    wait_until(lambda: "worker_healthy" in worker.log)

    assert "health_served" not in worker.log
    assert worker.log.count("worker_unhealthy") == 1


@pytest.mark.slow
def test_lock_that_keeps_every_worker_from_claiming_is_seen(
    probed: Callable[..., Worker], queue: Queue, connect: Callable[[], Connection]
) -> None:
    worker = probed(ORDERS_LEASE_SECONDS=10)
    locker = connect()
    locker.execute("BEGIN")
    locker.execute("LOCK TABLE orders IN EXCLUSIVE MODE")

    wait_until(lambda: "exchange_stalled" in reasons(worker))
    locker.execute("COMMIT")
    queue.submit()
    queue.until_all("completed")
    wait_until(lambda: ask(worker)[0] == 200)


def test_worker_whose_slots_are_busy_or_whose_line_is_locked_is_healthy(
    probed: Callable[..., Worker],
    queue: Queue,
    connect: Callable[[], Connection],
    notes: Callable[..., Any],
    pass_seconds: Callable[[int], None],
) -> None:
    workers = [probed("handle = gated")]
    queue.submit()
    wait_until(notes)
    locked = queue.submit_one()
    locker = connect()
    locker.execute("BEGIN")
    locker.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (locked,))
    workers.append(probed("handle = gated"))

    pass_seconds(8)

    assert [ask(worker)[0] for worker in workers] == [200, 200]
    assert queue.counts() == {"processing": 1, "pending": 1}
    assert not any("worker_unhealthy" in worker.log for worker in workers)


@pytest.mark.slow
def test_worker_whose_line_is_empty_or_paused_is_healthy(
    probed: Callable[..., Worker], queue: Queue, pass_seconds: Callable[[int], None]
) -> None:
    worker = probed()
    pass_seconds(8)
    assert ask(worker)[0] == 200
    pause(queue.connection)
    queue.submit()

    pass_seconds(8)

    assert ask(worker)[0] == 200
    assert queue.counts() == {"pending": 1}
    assert "worker_unhealthy" not in worker.log


def test_handlers_that_wait_while_all_connections_stay_lent_are_seen(
    probed: Callable[..., Worker], queue: Queue
) -> None:
    worker = probed(
        HOLDS_ITS_CONNECTION, ORDERS_CONCURRENCY=2, ORDERS_HANDLER_CONNECTIONS=1, ORDERS_LEASE_SECONDS=1
    )

    queue.submit(2)

    wait_until(lambda: reasons(worker) == ["no_handler_connection"])


@pytest.mark.direct  # It ends a session of the server's by the application's name.
def test_schema_that_stops_fitting_a_running_worker_is_seen_with_the_remedy(
    probed: Callable[..., Worker], queue: Queue
) -> None:
    worker = probed()
    revision, required = queue.all("SELECT version_num, requires_revision FROM alembic_version, queue")[0]
    queue.connection.execute("UPDATE alembic_version SET version_num = '0000'")
    queue.terminate("orders-housekeeping")

    wait_until(lambda: reasons(worker) == ["schema_unfit"])
    assert re.fullmatch(r"the schema did not fit this program for \d+ s", ask(worker)[1]["detail"])
    wait_until(lambda: re.search("worker_unhealthy .*`orders migrate`", worker.log))
    queue.connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    wait_until(lambda: "worker_healthy" in worker.log)
    queue.connection.execute("UPDATE queue SET requires_revision = '9999'")
    queue.terminate("orders-housekeeping")
    wait_until(lambda: re.search("worker_unhealthy .*newer release", worker.log))
    queue.connection.execute("UPDATE queue SET requires_revision = %s", (required,))
    wait_until(lambda: ask(worker)[0] == 200)


@pytest.mark.slow
def test_worker_that_is_dead_by_the_databases_word_and_can_not_register_anew_is_unhealthy(
    probed: Callable[..., Worker], queue: Queue
) -> None:
    worker = probed()
    queue.connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no more'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON workers FOR EACH ROW EXECUTE FUNCTION refuse();
        UPDATE workers SET dead_at = clock_timestamp();
    """)

    wait_until(lambda: set(reasons(worker)) == {"exchange_stalled", "heartbeat_lost"})
    queue.connection.execute("DROP TRIGGER refuse ON workers")
    wait_until(lambda: ask(worker)[0] == 200)


def test_database_that_goes_away_or_turns_read_only_is_named_without_its_password(
    probed: Callable[..., Worker], private_server: Server, private_url: str
) -> None:
    worker = probed(url=conninfo.make_conninfo(private_url, password=SECRET))
    with Connection.open(private_url, name="test") as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: reasons(worker) == ["database_read_only"])
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: ask(worker)[0] == 200)

    private_server.stop("immediate")
    wait_until(lambda: reasons(worker) == ["database_away"])
    detail = ask(worker)[1]["detail"]
    wait_until(lambda: "reasons=database_away" in worker.log)
    assert ask(worker, "/healthz") == (200, {"status": "up"})
    private_server.ensure_running()
    wait_until(lambda: ask(worker)[0] == 200)

    assert re.fullmatch(r"no answer from the database for \d+ s", detail)
    assert re.search(
        r'reasons=database_away detail="no answer from the database for \d+ s: \w+: ', worker.log
    )
    assert SECRET not in worker.log


def test_probes_are_answered_while_other_clients_say_nothing_and_refused_after_the_end(
    probed: Callable[..., Worker],
) -> None:
    worker = probed()
    where = address(worker)
    assert where is not None
    host, port = where.split(":")
    with ExitStack() as silent:
        for number in range(50):
            client = silent.enter_context(socket.create_connection((host, int(port)), timeout=5))
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: h\r\nX-Slow: "[: number or None])

        assert ask(worker) == (200, {"status": "ready"})
        stopped_at = time.monotonic()
        assert worker.stop() == 0

    assert time.monotonic() - stopped_at < 10
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))

import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from tests.worker.conftest import Queue, StartWorker


class Wire:
    """Stands between a worker and the server, and loses one answer when it is told to."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as connection:
            self._server = (connection.info.host, connection.info.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = conninfo.make_conninfo(
            url,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )
        self.to_lose: tuple[bytes, bytes] | None = None
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._sockets += [client, server]
                threading.Thread(target=self._carry, args=[client, server], daemon=True).start()
        except OSError:
            pass

    def _connect(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        first_words = client.recv(65536)
        server.sendall(first_words)
        try:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    carried = ready.recv(65536)
                    if not carried or (ready is server and self._loses(first_words, carried)):
                        return
                    (server if ready is client else client).sendall(carried)
        except (OSError, ValueError):
            pass
        finally:
            client.close()
            server.close()

    def _loses(self, first_words: bytes, answer: bytes) -> bool:
        if self.to_lose is None or self.to_lose[0] not in first_words or self.to_lose[1] not in answer:
            return False
        self.to_lose = None
        return True


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    wire = Wire(database_url)
    yield wire
    wire.close()


def test_claims_whose_answer_was_lost_are_worked_all_the_same(
    start_worker: StartWorker,
    queue: Queue,
    wire: Wire,
    notes: Callable[..., list[dict[str, Any]]],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker(url=wire.url, ORDERS_CONCURRENCY=4, ORDERS_LEASE_SECONDS=10)
    wire.to_lose = (b"orders-dispatcher", b"ada")

    ids = queue.submit(10)

    queue.until_all("completed")
    wait_until(lambda: len(notes()) == 10)
    assert Counter(line["order_id"] for line in notes()) == Counter(map(str, ids))
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert "strays_adopted" in worker.log


def test_commit_whose_answer_was_lost_is_looked_up(
    start_worker: StartWorker, queue: Queue, wire: Wire, notes: Callable[..., list[dict[str, Any]]]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    worker = start_worker(
        """
def handle(order, context):
    note(order)
    context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
""",
        url=wire.url,
    )
    wire.to_lose = (b"orders-handler", b"COMMIT\0")

    order_id = queue.submit_one()

    assert queue.until(order_id, "completed").attempt == 1
    assert queue.all("SELECT order_id FROM ledger") == [(order_id,)]
    assert len(notes()) == 1
    assert wire.to_lose is None
    assert worker.stop() == 0
    assert "claim_lost" not in worker.log

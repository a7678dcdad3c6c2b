"""A real orders-api that is held up: what it answers, what it turns away, and what it drops."""

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orders_api.server import LANES, THREADS
from schema.runtime.admission import MAX_WAITING
from schema.runtime.connection import Connection
from tests.api.conftest import ORDER, Answer, Api, StartApi

BODY = json.dumps(ORDER).encode()
POST = (
    b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@contextmanager
def locked(connect: Callable[[], Connection]) -> Iterator[None]:
    """Lock the table, so that every statement on it waits."""
    with connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE orders")
        yield


def probe(api: Api, path: str, *, seconds: float) -> int:
    """Return the status of an answer that comes in time."""
    with ExitStack() as stack:
        connection = api.connect()
        stack.callback(connection.close)
        connection.timeout = seconds
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.fixture
def post_many(api: Api) -> Iterator[Callable[[int], list[Answer]]]:
    """Let so many clients post an order at once; return their answers, which grow."""
    threads: list[threading.Thread] = []

    def post_many(count: int) -> list[Answer]:
        answers: list[Answer] = []
        began = len(threads)
        threads.extend(threading.Thread(target=lambda: answers.append(api.post())) for _ in range(count))
        for thread in threads[began:]:
            thread.start()
        return answers

    yield post_many
    for thread in threads:
        thread.join()


def test_probes_are_answered_while_a_locked_table_holds_up_every_client(
    api: Api,
    connect: Callable[[], Connection],
    held_up: Callable[[], list[int]],
    post_many: Callable[[int], list[Answer]],
) -> None:
    with locked(connect):
        post_many(64)
        held_up()
        alive = [probe(api, "/healthz", seconds=2) for _ in range(50)]
        ready = [probe(api, "/readyz", seconds=8) for _ in range(2)]

    assert set(alive) == {200}
    assert set(ready) <= {200, 503}


def test_request_that_has_waited_for_long_is_turned_away_and_not_carried_out(
    api: Api,
    connect: Callable[[], Connection],
    stored: Callable[[], int],
    post_many: Callable[[int], list[Answer]],
    wait_until: Callable[..., Any],
) -> None:
    with locked(connect):
        answers = post_many(64)
        wait_until(lambda: len(answers) == 64)

    turned_away = [answer for answer in answers if answer.json["type"] == "/problems/overloaded"]
    assert {answer.status for answer in answers} == {503}
    # Twice as many as there are threads may have got a turn.
    assert len(turned_away) >= 64 - 2 * THREADS
    assert {answer.headers["Content-Type"] for answer in turned_away} == {"application/problem+json"}
    assert {answer.headers["Retry-After"] for answer in turned_away} == {"1"}
    assert all(answer.headers["X-Request-ID"] for answer in turned_away)
    assert stored() <= 64 - len(turned_away)
    wait_until(lambda: "WARNING requests_turned_away count=" in api.log)
    assert api.post().status == 201


def test_only_so_many_requests_wait(
    api: Api, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    count = MAX_WAITING + THREADS + 20
    with ExitStack() as stack, locked(connect):
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(count)
        ]
        for client in clients:
            client.sendall(POST)
            client.settimeout(0.001)

        def answered() -> Counter[bytes]:
            found: Counter[bytes] = Counter()
            for client in clients:
                try:
                    found[client.recv(65536, socket.MSG_PEEK)[9:12]] += 1
                except TimeoutError:
                    found[b""] += 1
            return found

        # At once: nobody has waited for long yet.
        wait_until(lambda: answered()[b"503"] >= 20)
        assert probe(api, "/healthz", seconds=2) == 200
    wait_until(lambda: api.post().status == 201)


def test_order_of_a_client_that_has_left_before_its_turn_is_not_placed(
    api: Api,
    connect: Callable[[], Connection],
    held_up: Callable[[], list[int]],
    stored: Callable[[], int],
    wait_until: Callable[..., Any],
) -> None:
    watcher = connect()
    with locked(connect):
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", api.port)) as client:
                client.sendall(POST)
        wait_until(lambda: len(held_up()) >= LANES["work"])
        watcher.execute("SELECT pg_sleep(0.5)")  # longer than the API bears with the end of a stream
    last = api.post()

    assert last.status == 201
    assert api.stop() == 0
    assert 1 <= stored() <= THREADS + 1  # in a statement when they left, and the last
    assert "Traceback" not in api.log


def test_client_that_ends_its_stream_after_its_request_is_answered(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(POST)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 201 ")


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory is read from /proc"
)


def resident_mebibytes(api: Api) -> int:
    """Return the most memory that the process has had."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


SIZE = 8 * 1024 * 1024
GREEDY = {
    "numbers": b'{"orders":[' + b"1," * (SIZE // 2 - 20) + b"1]}",
    "one order": b'{"orders":[{"item_ids":[' + b"1," * (SIZE // 2 - 20) + b"1]}]}",
    "wrong orders": b'{"orders":[' + b",".join([b'{"user_id":1}'] * (SIZE // 14 - 20)) + b"]}",
    "an emoji": '{"orders":["👩", '.encode() + b'"",' * (SIZE // 3 - 20) + b'""]}',
}


@needs_proc
@pytest.mark.parametrize("body", GREEDY.values(), ids=GREEDY)
def test_large_bodies_at_once_take_little_memory_and_hold_up_no_probe(
    start_api: StartApi, database_url: str, body: bytes
) -> None:
    api = start_api(database_url)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(api.call("POST", "/orders/batch", body)))
        for _ in range(16)
    ]
    alive = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        alive.append(probe(api, "/healthz", seconds=2))
    for thread in threads:
        thread.join()

    assert set(alive) == {200}
    assert {answer.status for answer in answers} <= {400, 503}
    assert resident_mebibytes(api) < 400

"""The HTTP server that the API and a worker's probes share."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from orders_worker.health.probes import Probes
from schema.runtime.listening import bind
from tests.dribbling import dribbling
from tests.probes import Patient, answering

CONNECTIONS = 100


@pytest.fixture
def probes() -> Iterator[Probes]:
    with answering(Patient()) as server:
        yield server


def port(probes: Probes) -> int:
    return int(probes.url.rpartition(":")[2])


def connect(probes: Probes) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(probes)), timeout=10)


def ask(probes: Probes) -> int:
    with closing(HTTPConnection(probes.url.removeprefix("http://"), timeout=10)) as client:
        client.request("GET", "/readyz")
        return client.getresponse().status


def test_clients_that_never_end_their_request_hold_up_nobody_and_are_closed_in_time(probes: Probes) -> None:
    with ExitStack() as slow:
        # The server's own two descriptors count as well: there is room for one more.
        clients = [slow.enter_context(connect(probes)) for _ in range(CONNECTIONS - 3)]
        for client in clients:
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: h\r\nX-Slow: ")
        assert ask(probes) == 200

        clients.append(slow.enter_context(connect(probes)))
        # Only when the server has closed the silent ones.
        assert ask(probes) == 200
        for client in clients[: CONNECTIONS - 3]:
            client.settimeout(30)
            assert client.recv(1) == b""


def test_clients_whose_requests_dribble_shut_no_probe_out(probes: Probes) -> None:
    with dribbling(port(probes), CONNECTIONS + 5):
        assert ask(probes) == 200
        assert ask(probes) == 200


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /readyz HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n", 413),
        (b"GET /readyz HTTP/1.1\r\nHost: h\r\nX: ".ljust(16 * 1024, b"x"), 431),
    ],
    ids=["bad syntax", "large body", "large head"],
)
def test_request_that_the_server_refuses_is_answered_with_a_problem(
    probes: Probes, request_head: bytes, status: int
) -> None:
    with connect(probes) as client:
        client.sendall(request_head)
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")

    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body).keys() == {"type", "title", "status", "detail"}
    assert json.loads(body)["status"] == status


def test_server_that_is_closed_may_still_be_woken() -> None:
    server = Probes(bind("127.0.0.1", 0, port_setting="ORDERS_HEALTH_PORT"), Patient().health)
    server.close()

    server.wake()

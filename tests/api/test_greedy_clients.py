"""A real orders-api and clients that are slow, many, or send what nobody expects."""

import re
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api, StartApi
from tests.dribbling import dribbling

START = b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
CONNECTIONS = 810
"""More than one API has room for."""


def answers(api: Api) -> bool:
    try:
        return api.call("GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: ", START], ids=["nothing", "head", "body"])
def test_clients_whose_requests_never_arrive_shut_nobody_out(api: Api, start: bytes) -> None:
    with dribbling(api.port, CONNECTIONS, start):
        assert answers(api)
        assert api.post().status == 201


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", START], ids=["head", "body"])
def test_request_that_does_not_arrive_in_time_is_closed_however_it_dribbles(api: Api, start: bytes) -> None:
    with dribbling(api.port, 1, start) as clients, suppress(ConnectionError):
        assert clients[0].recv(1) == b""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 413),
        ("GET", "/metrics", 413),
        ("GET", "/orders/01a2266b-ed1c-7f01-8208-6f2c8e11008f", 413),
        ("HEAD", "/readyz", 413),
        ("POST", "/metrics", 405),
        ("PUT", "/orders", 405),
        ("DELETE", "/orders/batch", 405),
        ("POST", "/order", 404),
    ],
)
@pytest.mark.parametrize("length", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_body_that_nobody_expects_is_refused_before_it_is_sent(
    api: Api, method: str, path: str, status: int, length: str
) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in answer


def limited(files: str) -> list[str]:
    return ["sh", "-c", f'ulimit {files}; exec "$0" "$@"', sys.executable, "-m", "orders_api"]


def processor_seconds(api: Api) -> float:
    fields = Path(f"/proc/{api.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the times are read from /proc")


@needs_proc
def test_api_that_may_open_few_files_serves_fewer_clients_and_does_not_spin(
    start_api: StartApi, database_url: str
) -> None:
    api = start_api(database_url, command=limited("-n 256"))
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=30))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        began, before = time.monotonic(), processor_seconds(api)
        assert answers(api)
        time.sleep(2)  # what is looked for is work where there is none
        spent = processor_seconds(api) - before
        passed = time.monotonic() - began

    assert spent < passed / 2
    assert api.post().status == 201


@needs_proc
def test_limit_of_open_files_is_raised_as_far_as_allowed(start_api: StartApi, database_url: str) -> None:
    api = start_api(database_url, command=limited("-S -n 100"))

    limits = Path(f"/proc/{api.process.pid}/limits").read_text()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert re.search(rf"Max open files +{hard} +{hard} ", limits)


@needs_proc
def test_large_bodies_that_arrive_in_part_leave_no_files(api: Api, wait_until: Callable[..., Any]) -> None:
    head = b"POST /orders/batch HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n"

    def spooled() -> int:
        count = 0
        for each in Path(f"/proc/{api.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed just now
                count += "deleted" in str(each.readlink())
        return count

    before = spooled()  # what pytest captures with
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=30))
            client.sendall(head + b" " * 1_000_000)
        wait_until(lambda: spooled() == before + 20)
    wait_until(lambda: spooled() == before)

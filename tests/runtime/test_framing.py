"""A request that a proxy and the server could read differently is refused, and none costs too much."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from schema.runtime.http_server import HttpServer

POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


class Served:
    """A server whose application keeps the addresses and bodies of its requests."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.server = HttpServer(
            self._answer,
            listener,
            lanes={"work": 1},
            lane_of=lambda _path, _length: "work",
            takes_body=lambda method, _path: method == "POST",
            arrival_seconds=60,
            connection_limit=100,
            channel_timeout=60,
            max_request_header_size=64 * 1024,
            max_request_body_size=16 * 1024 * 1024,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.bodies.append((environ["PATH_INFO"], environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return [b"well"]

    def _serve(self) -> None:
        while not self._over.is_set():
            self.server.serve(1.0)

    def close(self) -> None:
        self._over.set()
        self.server.wake()
        self._thread.join()
        self.server.close()

    def send(self, *pieces: bytes) -> bytes:
        """Send the pieces, each by itself; return what comes back until the server closes."""
        with socket.create_connection(self.address, timeout=30) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: client.recv(65536), b""))
            except OSError:  # the server has closed already
                return b""


@pytest.fixture
def served() -> Iterator[Served]:
    with closing(Served()) as served:
        yield served


REFUSED = {
    "no version": b"GET /\r\nHost: h\r\n\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\nHost: h\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "version 3.1": b"GET / HTTP/3.1\r\nHost: h\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "two Hosts in 1.0": b"GET / HTTP/1.0\r\nHost: h\r\nhost: g\r\n\r\n",
    "two Hosts in one": b"GET / HTTP/1.1\r\nHost: h, g\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "folded line, tab": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb: c\r\n\r\n",
    "folded Transfer-Encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded first line": b"GET / HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n",
    "blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    "Transfer-Encoding in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding in 1.0 kept alive": (
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, otherwise": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "length and an empty Transfer-Encoding": POST + b"Content-Length: 0\r\nTransfer-Encoding:\r\n\r\n",
    "empty Transfer-Encoding": POST + b"Transfer-Encoding:\r\n\r\n",
    "two Transfer-Encodings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two Transfer-Encodings in one": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two Transfer-Encodings, one unknown": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    ),
    "Transfer-Encoding with an empty one": POST + b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths in one": POST + b"Content-Length: 0, 0\r\n\r\n",
    "signed length": POST + b"Content-Length: +0\r\n\r\n",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "chunk without a size": CHUNKED + b"\r\n0\r\n\r\n",
    "chunk with a bare LF": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "chunk with a bare LF before its end": CHUNKED + b"1\n\r\nx\r\n0\r\n\r\n",
    "chunk with a signed size": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "chunk with a prefix": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "chunk with a blank": CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
    "chunk of 17 digits": CHUNKED + b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "chunk shorter than its size": CHUNKED + b"3\r\nx\r\n0\r\n\r\n",
    "bare LF after a chunk": CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "extension with a bare CR": CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "trailer that is a request": CHUNKED + b"0\r\n" + SMUGGLED,
    "folded trailer": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_request_that_can_be_read_in_two_ways_is_refused_and_its_connection_closed(
    served: Served, request_: bytes
) -> None:
    answer = served.send(request_ + SMUGGLED)

    assert re.match(rb"HTTP/1\.[01] 400 Bad Request\r\nConnection: close\r\n", answer)
    assert answer.count(b"Content-Length: ") == 1
    assert served.bodies == []


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_request_that_can_be_read_in_two_ways_is_refused_however_it_is_cut(
    served: Served, request_: bytes
) -> None:
    # The answer may be lost: the client still sends when the server has closed.
    served.send(*(request_[at : at + 1] for at in range(len(request_))), SMUGGLED)

    assert served.bodies == []


TAKEN = {
    "1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", b""),
    "Host with a port": (b"GET / HTTP/1.1\r\nHost: a-b.c_d:80\r\n\r\n", b""),
    "Host of IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", b""),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b""),
    "empty lines in front": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", b""),
    "blanks around a value": (b"GET / HTTP/1.1\r\nHost: \t h \t\r\nX:\r\nY:  \r\n\r\n", b""),
    "length": (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
    "chunks that look like lines": (CHUNKED + b"0a\r\n0\r\n\r\n5\r\nhi\r\n0\r\n\r\n", b"0\r\n\r\n5\r\nhi"),
    "chunk extensions": (CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n0;z\r\n\r\n', b"hello"),
    "trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n", b"hello"),
    "no chunk": (CHUNKED + b"0\r\n\r\n", b""),
    "Chunked": (POST + b"transfer-encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"x"),
}


@pytest.mark.parametrize(("request_", "body"), TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
def test_request_that_is_right_is_taken_and_the_next_one_too(
    served: Served, request_: bytes, body: bytes, *, cut: bool
) -> None:
    pieces = [request_[at : at + 1] for at in range(len(request_))] if cut else [request_]
    keeps = b"HTTP/1.1" in request_

    with socket.create_connection(served.address, timeout=30) as client:
        for piece in [*pieces, b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" * keeps]:
            client.sendall(piece)
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert served.bodies == [("/", body), ("/next", b"")][: 1 + keeps]
    assert answer.count(b"200 OK") == 1 + keeps


def processor_seconds(served: Served, pieces: Iterator[bytes]) -> float:
    """Return the processor time of this process while the server reads the pieces or refuses them."""
    began = time.process_time()
    served.send(*pieces)
    return time.process_time() - began


SIZE = 8 * 1024 * 1024

GREEDY: dict[str, Callable[[], Iterator[bytes]]] = {
    "line of a chunk": lambda: iter([CHUNKED, b"1" * SIZE]),
    "extension of a chunk": lambda: iter([CHUNKED, b"1;", b"a" * SIZE]),
    "trailer": lambda: iter([CHUNKED, b"0\r\n", b"X: ", b"a" * SIZE]),
    "fields of a trailer": lambda: iter([CHUNKED, b"0\r\n", b"X: a\r\n" * (SIZE // 6)]),
    "empty lines in a body": lambda: iter([CHUNKED, b"\r\n" * (SIZE // 2)]),
    "empty lines before a request": lambda: iter([b"\r\n" * (SIZE // 2)]),
    "blanks before a value": lambda: iter([POST, b"X:" + b" " * 60_000 + b"a\r\n\r\n"]),
    "blanks before a bad value": lambda: iter([POST, b"X:" + b" " * 60_000 + b"\0\r\n\r\n"]),
    "chunks of a byte": lambda: iter([CHUNKED, b"1\r\nx\r\n" * (SIZE // 6), b"0\r\n\r\n"]),
}


@pytest.mark.parametrize("pieces", GREEDY.values(), ids=GREEDY)
def test_request_costs_no_more_than_its_length(served: Served, pieces: Callable[[], Iterator[bytes]]) -> None:
    # Eight megabytes in chunks of a byte take a second, and all else far less; waitress takes 5 to 25.
    assert processor_seconds(served, pieces()) < 4

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import conninfo

# https://www.postgresql.org/docs/current/protocol-message-formats.html
STATEMENT_ENDS = (b"Q", b"S")
ANSWER_ENDS = b"Z"
SENT_ALONE = (b"X", b"p")


@dataclass(frozen=True, slots=True)
class Crossing:
    """A whole statement, or the whole answer to it, that is about to be passed on.

    `number` counts the statements on all connections of that application `name`, from 1; the first one on
    a connection is the connecting itself.
    """

    name: str
    number: int
    answered: bool
    content: bytes


class Wire:
    """Stands between a process and the server, and lets pass what its guard lets pass.

    `guard` is called with every crossing, one after another for each connection. It may take its time;
    where it returns False, the connection is cut. COPY is not understood.
    """

    def __init__(self, url: str, guard: Callable[[Crossing], bool]) -> None:
        with psycopg.connect(url) as connection:
            self._server = (connection.info.host, connection.info.port)
        self._guard = guard
        self._numbers: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = conninfo.make_conninfo(
            url,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            _shut(each)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._sockets += [client, server]
                _Line(client, server, number=self._number, guard=self._guard).open()

    def _connect(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _number(self, name: str) -> int:
        with self._lock:
            self._numbers[name] += 1
            return self._numbers[name]


class _Line:
    """One connection through the wire, read by a thread in each direction."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        *,
        number: Callable[[str], int],
        guard: Callable[[Crossing], bool],
    ) -> None:
        self._client = client
        self._server = server
        self._next_number = number
        self._guard = guard
        self._name = ""
        self._number = 0
        self._awaits = False

    def open(self) -> None:
        for carry in (self._carry_statements, self._carry_answers):
            threading.Thread(target=self._run, args=[carry], daemon=True).start()

    def _run(self, carry: Callable[[], None]) -> None:
        try:
            carry()
        except (OSError, EOFError):
            pass
        finally:
            _shut(self._client)
            _shut(self._server)

    def _carry_statements(self) -> None:
        length = _read(self._client, 4)
        statement = length + _read(self._client, struct.unpack("!I", length)[0] - 4)
        words = statement[8:].split(b"\0")
        self._name = dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()
        while True:
            self._number = self._next_number(self._name)
            if not self._passes(statement, answered=False):
                return
            self._awaits = True
            self._server.sendall(statement)
            statement = self._statement()

    def _statement(self) -> bytes:
        statement = b""
        while True:
            message = _message(self._client)
            if message[:1] in SENT_ALONE:
                self._server.sendall(message)
                continue
            statement += message
            if message[:1] in STATEMENT_ENDS:
                return statement

    def _carry_answers(self) -> None:
        answer = b""
        while True:
            try:
                message = _message(self._server)
            except EOFError:
                self._client.sendall(answer)
                return
            answer += message
            # What comes unasked is a notification, or the server's goodbye. Its questions at the
            # beginning, for a password, are part of no answer: they have to pass to be replied to.
            if message[:1] == ANSWER_ENDS:
                self._awaits = False
                if not self._passes(answer, answered=True):
                    return
            elif self._awaits and message[:1] != b"R":
                continue
            self._client.sendall(answer)
            answer = b""

    def _passes(self, content: bytes, *, answered: bool) -> bool:
        return self._guard(Crossing(self._name, self._number, answered, content))


def _message(source: socket.socket) -> bytes:
    head = _read(source, 5)
    return head + _read(source, struct.unpack("!I", head[1:])[0] - 4)


def _read(source: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = source.recv(count - len(content))
        if not piece:
            raise EOFError
        content += piece
    return content


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)

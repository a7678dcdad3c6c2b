import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
import pytest
from falcon.testing import TestClient
from psycopg import conninfo

from orders_api.app import create_app
from orders_api.database.coalescer import Coalescer
from orders_api.database.pool import Database
from schema.runtime.connection import Connection

ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "cup"], "total_amount": 250.75}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, size=2, wait_seconds=10) as database:
        yield database


class Submitted:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def submitted() -> Submitted:
    return Submitted()


@pytest.fixture
def client(database: Database, submitted: Submitted) -> TestClient:
    """The application without a server in front of it."""
    return TestClient(create_app(database, submitted, simulated_seconds=2))


@pytest.fixture
def offline(submitted: Submitted) -> Iterator[TestClient]:
    """The application with nothing behind it, for what needs no database."""
    with Database("host=/nonexistent", size=1, wait_seconds=0.01) as database:
        yield TestClient(create_app(database, submitted, simulated_seconds=2))


@pytest.fixture
def stored(connection: Connection) -> Callable[[], int]:
    """Count the orders in the database."""

    def count() -> int:
        row = connection.execute("SELECT count(*) FROM orders").fetchone()
        assert row is not None
        return int(row[0])

    return count


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture
def held_up(connection: Connection, wait_until: Callable[..., Any]) -> Callable[[], list[int]]:
    """Return the processes of the statements that wait for a lock on the table, when there is one."""
    waiting = """
        SELECT pid
        FROM pg_locks
        WHERE relation = 'orders'::regclass
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND NOT granted
    """
    return lambda: wait_until(lambda: [pid for (pid,) in connection.execute(waiting)])


@dataclass(frozen=True)
class Crowd:
    """Requests that came while the table was locked: `first` waits in `pid`, the others behind it."""

    first: "Future[Any]"
    pid: int
    others: "list[Future[Any]]"


class Gather(Protocol):
    def __call__(
        self, coalescer: Coalescer[Any, Any], call: Callable[[Any], Any], *, first: Any, others: list[Any]
    ) -> AbstractContextManager[Crowd]: ...


@pytest.fixture
def gather(
    connect: Callable[[], Connection],
    threads: ThreadPoolExecutor,
    held_up: Callable[[], list[int]],
    wait_until: Callable[..., Any],
) -> Gather:
    """Lock the table and have a crowd `call` for something; unlock it at the end."""

    @contextmanager
    def gathered(
        coalescer: Coalescer[Any, Any], call: Callable[[Any], Any], *, first: Any, others: list[Any]
    ) -> Iterator[Crowd]:
        with connect().transaction() as transaction:
            transaction.connection.execute("LOCK TABLE orders")
            one = threads.submit(call, first)
            (pid,) = held_up()
            rest = [threads.submit(call, each) for each in others]
            wait_until(lambda: len(coalescer._waiting) == len(others))
            yield Crowd(one, pid, rest)

    return gathered


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """A real `orders-api` process."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def port(self) -> int:
        """The port it listens on, 0 while it does not."""
        found = re.search(r"api_started url=http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[1]) if found else 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = self.connect()
        try:
            sent = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, sent, {**JSON, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def post(self, order: dict[str, Any] = ORDER) -> Answer:
        return self.call("POST", "/orders", order)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(60)
        self._reader.join(10)
        return status

    def dispose(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class StartApi(Protocol):
    def __call__(self, url: str, *, ready: bool = ..., command: list[str] = ..., **settings: str) -> Api: ...


@pytest.fixture
def start_api(wait_until: Callable[..., Any]) -> Iterator[StartApi]:
    """Start `orders-api` on a free port and, unless `ready` is false, wait until it serves."""
    with ExitStack() as stack:

        def start(
            url: str,
            *,
            ready: bool = True,
            command: list[str] = [sys.executable, "-m", "orders_api"],  # noqa: B006 - only ever read
            **settings: str,
        ) -> Api:
            environment = {**os.environ, "DATABASE_URL": url, "ORDERS_PORT": "0", **settings}
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            api = Api(process)
            stack.callback(api.dispose)
            if ready:
                wait_until(lambda: api.port or process.poll() is not None)
                assert api.port, api.log
            return api

        yield start


@pytest.fixture
def api(start_api: StartApi, database_url: str) -> Api:
    return start_api(database_url)


class Relay:
    """Stands between a process and the server, and takes the server away when told to."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        with psycopg.connect(server_url) as connection:
            host, port = connection.info.host, connection.info.port
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._port = 0
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self._acceptors: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.muted = False
        self.back()

    @property
    def url(self) -> str:
        # Neither TLS nor GSS: their first byte back would have to pass while the relay is muted.
        return conninfo.make_conninfo(
            self._server_url, host="127.0.0.1", port=self._port, sslmode="disable", gssencmode="disable"
        )

    def back(self) -> None:
        """Let clients connect again."""
        self.muted = False
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen()
        self._port = self._listener.getsockname()[1]
        self._acceptors.append(threading.Thread(target=self._accept, args=(self._listener,), daemon=True))
        self._acceptors[-1].start()

    def away(self) -> None:
        """Refuse new connections, and end those that there are."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """End the connections that there are, and take new ones."""
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.away()
        for acceptor in self._acceptors:
            acceptor.join()
        for each in self._sockets:
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
                with self._lock:
                    self._sockets += [client, server]
                server.connect(self._target)
                with self._lock:
                    if self._listener is not listener:
                        # Accepted just before the server went away.
                        client.shutdown(socket.SHUT_RDWR)
                threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
                threading.Thread(
                    target=self._pump, args=(server, client), kwargs={"reply": True}, daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, *, reply: bool = False) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if not (reply and self.muted):
                    sink.sendall(piece)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    relay = Relay(database_url)
    yield relay
    relay.close()

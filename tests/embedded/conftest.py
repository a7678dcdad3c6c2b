import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from schema.embedded import address
from schema.embedded.server import Server
from tests.servers import reachable_folder

ROOT = os.geteuid() == 0
CHECKOUT = Path(__file__).parents[2]


class MakeServer(Protocol):
    def __call__(self, home: Path | None = None, *, seeded: bool = True, **options: Any) -> Server: ...


@pytest.fixture
def folder() -> Iterator[Path]:
    """Unlike tmp_path, which only we can enter, a folder that every user reaches."""
    with reachable_folder("embedded-") as path:
        yield path


@pytest.fixture(scope="session")
def seed(store: Path) -> Iterator[Path]:
    """The home of a server that was started and stopped once: a copy of it starts ten times as fast."""
    with reachable_folder("embedded-seed-") as path:
        server = Server(path / ".data", store=store)
        server.ensure_running()
        server.stop()
        yield server.home


@pytest.fixture
def make_server(folder: Path, seed: Path, store: Path) -> Iterator[MakeServer]:
    made: list[Server] = []

    def make(home: Path | None = None, *, seeded: bool = True, **options: Any) -> Server:
        if seeded:
            # Nothing here cuts the power.
            options.setdefault("settings", {"fsync": "off"})
        server = Server(home or folder / ".data", **{"store": store} | options)
        if seeded and not server.home.exists():
            subprocess.run(["cp", "-a", seed, server.home], check=True)
        made.append(server)
        return server

    yield make
    for server in made:
        dispose(server)


@pytest.fixture(scope="session")
def shared(seed: Path) -> Iterator[Path]:
    with reachable_folder("embedded-shared-") as folder:
        subprocess.run(["cp", "-a", seed, folder / ".data"], check=True)
        yield folder / ".data"


@pytest.fixture
def server(shared: Path, store: Path) -> Iterator[Server]:
    """A stopped server that has been through all that the tests before did to it."""
    server = Server(shared, settings={"fsync": "off"}, store=store)
    yield server
    server.stop("immediate")


def dispose(server: Server) -> None:
    place = server.place
    server.stop("immediate")
    if place.data.exists() and address.folder(place).parent != place.folder:
        shutil.rmtree(address.folder(place), ignore_errors=True)
    if place.in_store:
        shutil.rmtree(place.folder, ignore_errors=True)


def call(code: str, **options: Any) -> "subprocess.Popen[str]":
    """Begin a Python process that runs `code` on our modules."""
    options = {"env": {**os.environ, "PYTHONPATH": str(CHECKOUT)}, **options}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def complaints(stderr: str) -> str:
    """Leave out what a slow machine has us say: that we wait for something."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("orders: waiting for "))


def starting(server: Server) -> str:
    imports = "from pathlib import Path; from schema.embedded.server import Server"
    home, store = str(server.home), str(server.place.store)
    return f"{imports}; print(Server(Path({home!r}), store=Path({store!r})).ensure_running())"


def query(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def postmaster(url: str) -> int:
    return int(query(url, "SELECT pg_read_file('postmaster.pid')").split()[0])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))

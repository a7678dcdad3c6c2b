"""The PostgreSQL under test: durable as in production, and mortal."""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg

from schema import migrate
from schema.embedded import address, processes
from schema.embedded.server import Server
from tests.chaos.handler import LEDGER

_SETTINGS = {"max_connections": "100", "log_checkpoints": "off"}

_SESSIONS = """
SELECT pid
FROM pg_stat_activity
WHERE datname = current_database()
  AND application_name LIKE 'orders-%'
ORDER BY backend_start, pid
"""


class Database:
    """A server of the harness's own in a temporary folder."""

    def __init__(self) -> None:
        # Not below $TMPDIR: as root the server runs as another user, who must reach it.
        self.home = Path(tempfile.mkdtemp(prefix="orders-chaos-", dir="/tmp"))
        self.home.chmod(0o755)
        self.logs.mkdir()
        self._keep = False
        self._server = Server(self.home / "server", settings=_SETTINGS, store=self.home / "store")
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the server, with the queue's tables and the handler's ledger."""
        migrate.upgrade(self._server.ensure_running())
        with self.connect() as connection:
            connection.execute(LEDGER)
            connection.execute("CREATE TABLE pulse AS SELECT clock_timestamp() AS at")

    @property
    def url(self) -> str:
        """The direct way to the server."""
        return self._server.url

    @property
    def socket_path(self) -> str:
        """The server's socket."""
        return os.fspath(address.folder(self._server.place) / address.SOCKET)

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection of the harness, as a person with psql would."""
        return psycopg.connect(self.url, autocommit=True, application_name="chaos", connect_timeout=3)

    def sessions(self) -> list[int]:
        """Return the process ids of the sessions under test."""
        with self.connect() as connection:
            return [pid for (pid,) in connection.execute(_SESSIONS)]

    def kill_session(self, dice: random.Random) -> None:
        """Kill the process of one session: the server then ends all of them and recovers."""
        if pids := self.sessions():
            _kill(dice.choice(pids))

    def terminate_sessions(self, count: int, dice: random.Random) -> None:
        """End some sessions as an administrator does."""
        pids = self.sessions()
        with self.connect() as connection:
            for pid in dice.sample(pids, min(count, len(pids))):
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])

    def kill(self) -> None:
        """Kill the server's main process."""
        pid = processes.postmaster(self._server.place.data)
        if pid is not None:
            _kill(pid)

    def stop(self, mode: str) -> None:
        """Stop it; `immediate` is a crash."""
        with self._lock:
            self._server.stop(mode=mode)

    def ensure_running(self) -> None:
        """Start it if it is not up, and wait until it serves."""
        with self._lock:
            self._server.ensure_running()

    @property
    def logs(self) -> Path:
        """The folder for the logs of everything."""
        return self.home / "logs"

    def keep_logs(self) -> str:
        """Have the logs survive `destroy`, the server's beside the others; return their folder."""
        shutil.copytree(self._server.place.log, self.logs, dirs_exist_ok=True)
        self._keep = True
        return os.fspath(self.logs)

    def destroy(self) -> None:
        """End the server and remove its files."""
        with self._lock:
            self._server.stop(mode="immediate")
            kept = {self.logs} if self._keep else set()
            for path in set(self.home.iterdir()) - kept:
                shutil.rmtree(path, ignore_errors=True)
            if not kept:
                shutil.rmtree(self.home, ignore_errors=True)


def _kill(pid: int) -> None:
    # Another fault may have ended it a moment ago.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""A PgBouncer of the tests' own in front of a server, in transaction mode unless told otherwise."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import conninfo

from schema.embedded import account
from tests import programs

PORT = 5432
START_SECONDS = 10.0

SETTINGS: dict[str, object] = {
    "pool_mode": "transaction",
    "auth_type": "any",
    "admin_users": "pooled",
    "listen_port": PORT,
    "unix_socket_mode": "0700",
    "default_pool_size": 30,
    "max_client_conn": 500,
    # Each test has a database and so a pool of its own: what it leaves must not fill the server.
    "server_idle_timeout": 5,
    # A server that is back is noticed within a second; by default after 15.
    "server_login_retry": 1,
}
"""What PgBouncer is told. It hides no mistake of ours: it ignores no startup parameter."""


class Pooler:
    """One PgBouncer, reached through a socket in a private folder; every database of the server by its name.

    `settings` are PgBouncer's own (`default_pool_size=1`), over those of `SETTINGS`.
    """

    def __init__(self, server_url: str, **settings: object) -> None:
        self._server = conninfo.conninfo_to_dict(server_url)
        self._settings = SETTINGS | settings
        self._folder = Path(tempfile.mkdtemp(prefix="orders-pooler-"))
        self._account = account.for_folder(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self.through(server_url)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def through(self, url: str) -> str:
        """Return the way to the database of `url` that leads through this pooler."""
        database = conninfo.conninfo_to_dict(url)["dbname"]
        return conninfo.make_conninfo(host=str(self._folder), port=PORT, user="pooled", dbname=database)

    def start(self) -> None:
        """Start it and wait until it answers; if it doesn't, leave neither a process nor files behind."""
        try:
            self._launch()
            self._wait()
        except BaseException:
            self._remove()
            raise

    def _launch(self) -> None:
        (self._folder / "pgbouncer.ini").write_text(self._configuration())
        for path in (self._folder, self._folder / "pgbouncer.ini"):
            shutil.chown(path, self._account.uid, self._account.gid)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), self._folder / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account.options(),
            )

    def _wait(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, with every connection through it: from 1.23 on SIGTERM waits for the clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, command: str) -> list[dict[str, Any]]:
        """Send a command such as `SHOW CLIENTS` or `PAUSE` to its console; return the rows of the answer."""
        with psycopg.connect(
            conninfo.make_conninfo(self.url, dbname="pgbouncer"),
            autocommit=True,
            connect_timeout=3,
            row_factory=psycopg.rows.dict_row,
        ) as console:
            answer = console.execute(command)
            return answer.fetchall() if answer.description else []

    def forget(self, database: str) -> None:
        """Close its sessions in that database, and whatever its clients hold there."""
        self.command(f"KILL {database}")
        self.command(f"RESUME {database}")

    @property
    def socket_path(self) -> str:
        return str(self._folder / f".s.PGSQL.{PORT}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            self.command("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True

    def _configuration(self) -> str:
        way = {
            name: self._server[name] for name in ("host", "port", "user", "password") if name in self._server
        }
        server = " ".join(f"{name}={_quoted(value)}" for name, value in way.items())
        settings = {**self._settings, "unix_socket_dir": self._folder}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        return "\n".join(["[databases]", f"* = {server}", "[pgbouncer]", *lines, ""])


StartPooler = Callable[..., Pooler]


def is_installed() -> bool:
    """Tell whether there is a PgBouncer to start."""
    return programs.find("pgbouncer") is not None


def _program() -> str:
    found = programs.find("pgbouncer")
    assert found is not None, "there is no pgbouncer here: install the Debian package of that name"
    return found


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"

"""PostgreSQL's client programs, run on the database at DATABASE_URL or on this checkout's.

A `Client` chooses the right psql, pg_dump and pg_restore, and tells them where the database is. The password
goes through the environment, because every user of the machine can read a program's arguments.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from psycopg import conninfo

from schema.embedded import account, binaries, cluster, locate
from schema.embedded.environments import given_environment, terminal_environment
from schema.errors import StartError
from schema.runtime import settings, startup

SESSION = "orders-db"
"""The `application_name` of our own sessions, which come and go beside those programs."""


@dataclass(frozen=True, slots=True)
class Client:
    """A database, by its libpq `url`, and the `environment` of programs that work on it.

    `programs` is the folder they are in; None stands for the machine's own or, without any, the wheel's.
    """

    url: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    programs: Path | None = None

    def at(self, database: str) -> "Client":
        """Return the same for another database of the server."""
        return replace(self, url=conninfo.make_conninfo(self.url, dbname=database))

    def suited(self) -> "Client":
        """Return the same with programs whose dumps the server can be restored from.

        Raises `StartError` when there are none, or no server.
        """
        if self.programs is not None:
            return self
        with startup.connect(self.url, name=SESSION) as connection:
            server = connection.info.server_version // 10_000
        for path in _candidates("pg_dump"):
            if _suits(binaries.version(path), server):
                return replace(self, programs=path.parent)
        raise StartError(f"there is no pg_dump for PostgreSQL {server}: install its client programs")

    @property
    def address(self) -> str:
        """The argument that tells a program where the database is."""
        parameters = conninfo.conninfo_to_dict(self.url)
        parameters.pop("password", None)
        return f"--dbname={conninfo.make_conninfo('', **parameters)}"

    def become(self, name: str, *arguments: str) -> NoReturn:
        """Replace this process by a program on the database."""
        path = self._path(name)
        os.execve(path, [os.fspath(path), self.address, *arguments], dict(self.environment))  # noqa: S606

    def run(self, name: str, *arguments: str | Path) -> None:
        """Run a program; raise `StartError` with the last lines of its standard error when it fails."""
        account.run([self._path(name), *arguments], env=self.environment)

    def _path(self, name: str) -> Path:
        path = self.programs / name if self.programs else next(_candidates(name), None)
        if path is None:
            raise StartError(f"there is no {name}: install PostgreSQL's client, or orders-queue[embedded]")
        return path


def current() -> Client:
    """Return the client of the database at DATABASE_URL, or of this checkout's, started if need be."""
    url = settings.DATABASE_URL.read()
    if url is None:
        server = locate.server()
        return Client(server.ensure_running(), terminal_environment(), cluster.programs(server.place))
    password = conninfo.conninfo_to_dict(url).get("password")
    return Client(url, given_environment(**({} if password is None else {"PGPASSWORD": str(password)})))


def _candidates(name: str) -> Iterator[Path]:
    """Yield where the program is: the machine's first, because the wheel's have no TLS and no Kerberos."""
    found = shutil.which(name)
    if found is not None:
        yield Path(found)
    for _, folder in binaries.candidates():
        if (folder / name).is_file():
            yield folder / name


def _suits(program: int, server: int) -> bool:
    """Tell whether pg_dump and pg_restore of a version suit a server's.

    They must not be older. From 17 on pg_restore makes a setting that older servers do not have, and
    writes dumps that an older pg_restore can't read.
    """
    return program >= server and (program >= 17) == (server >= 17)

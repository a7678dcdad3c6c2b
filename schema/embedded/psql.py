"""Become psql, on the database that everything else here uses."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from psycopg import conninfo

from schema.embedded import binaries, checkout
from schema.embedded.config import given_environment, terminal_environment
from schema.errors import SettingError, StartError
from schema.runtime.config import DatabaseConfig


def run(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by psql with these arguments; raise `StartError` when there is no psql."""
    url = DatabaseConfig.from_environment().url
    if url is not None:
        program, environment = _for_any_server(), given_environment()
        password = conninfo.conninfo_to_dict(url).get("password")
        if password is not None:
            # Every user of the machine can read a program's arguments, but not its environment.
            url, environment = _without_password(url), given_environment(PGPASSWORD=str(password))
    else:
        server = checkout.server()
        url, program, environment = server.ensure_running(), server.programs / "psql", terminal_environment()
    os.execve(program, [os.fspath(program), f"--dbname={url}", *arguments], environment)  # noqa: S606


def _for_any_server() -> Path:
    """Prefer the machine's psql, because the wheel's has no TLS and no Kerberos."""
    found = shutil.which("psql")
    if found is not None:
        return Path(found)
    try:
        return binaries.find() / "psql"
    except SettingError:
        raise StartError("there is no psql: install PostgreSQL's client, or orders-queue[embedded]") from None


def _without_password(url: str) -> str:
    parameters = conninfo.conninfo_to_dict(url)
    del parameters["password"]
    return conninfo.make_conninfo("", **parameters)

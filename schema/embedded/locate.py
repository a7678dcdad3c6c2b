"""Where the database is: at DATABASE_URL, or in this checkout."""

from pathlib import Path
from typing import TYPE_CHECKING

import schema
from schema.errors import SettingError
from schema.runtime.url import URL_EXPECTED

if TYPE_CHECKING:
    from schema.embedded.server import Server


def resolve(url: str | None) -> str:
    """Return `url`, or that of the embedded PostgreSQL, which is started if need be.

    Any number of processes may call this at once. Raises `SettingError` outside a checkout and without
    the `embedded` extra, `StartError` when the server can't be had.
    """
    return server().ensure_running() if url is None else url


def server() -> "Server":
    """Return the checkout's server; raise `SettingError` when this package was installed elsewhere."""
    # Imported only here: with DATABASE_URL set, nothing of the embedded server is loaded.
    from schema.embedded.server import Server  # noqa: PLC0415

    return Server(root() / ".data")


def root(package: Path = Path(schema.__file__).parent) -> Path:
    """Return the folder that holds the package, which is a checkout if it has setup.cfg and Makefile."""
    folder = package.resolve().parent
    if not all((folder / name).is_file() for name in ("setup.cfg", "Makefile")):
        expected = f"expected {URL_EXPECTED} (only a checkout of the project has a PostgreSQL of its own)"
        raise SettingError("DATABASE_URL", None, expected)
    return folder

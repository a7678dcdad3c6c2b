"""Which checkout this package runs from, and the server that belongs to it."""

from pathlib import Path

import schema
from schema.embedded.server import Server
from schema.errors import SettingError


def server() -> Server:
    """Return the checkout's server; raise `SettingError` when this package was installed elsewhere."""
    return Server(root() / ".data")


def root(package: Path = Path(schema.__file__).parent) -> Path:
    """Return the folder that holds the package, which is a checkout if it has setup.cfg and Makefile."""
    folder = package.resolve().parent
    if not all((folder / name).is_file() for name in ("setup.cfg", "Makefile")):
        raise SettingError(
            "DATABASE_URL",
            None,
            "expected a URL such as postgresql://user:password@host:5432/orders"
            " (only a checkout of the project has a PostgreSQL of its own)",
        )
    return folder

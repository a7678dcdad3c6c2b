"""The PostgreSQL that serves a checkout when DATABASE_URL is not set.

`Server` keeps one server for one folder; `ensure_running` is the checkout's own, in `.data/`.
"""

from schema.embedded import checkout
from schema.embedded.server import Server

__all__ = ["Server", "ensure_running"]


def ensure_running() -> str:
    """Return a libpq URL of this checkout's server, which accepts connections.

    Any number of processes may call this at once. Raises `SettingError` outside a checkout and without
    the `embedded` extra, `StartError` when the server can't be had.
    """
    return checkout.server().ensure_running()

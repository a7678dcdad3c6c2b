"""Tell idle workers that an order came in. An accelerator only: every worker polls as well."""

from typing import Any

import psycopg

CHANNEL = "orders"


def notify(connection: psycopg.Connection[Any]) -> None:
    """Wake the workers. Call it after the insert's commit and at most one at a time per process.

    NOTIFY takes a lock of the whole server at commit, so a notification inside every inserting
    transaction would make them queue up.
    """
    connection.execute(_NOTIFY)


def listen(connection: psycopg.Connection[Any]) -> None:
    """Have `connection` receive the wake-ups. Works on a direct connection only."""
    connection.execute(_LISTEN)


_NOTIFY = f"NOTIFY {CHANNEL}"
_LISTEN = f"LISTEN {CHANNEL}"

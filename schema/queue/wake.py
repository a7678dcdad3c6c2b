"""Tell idle workers that an order came in. An accelerator only: every worker polls as well."""

from schema.runtime.connection import Connection

CHANNEL = "orders"


def notify(connection: Connection) -> None:
    """Wake the workers. Call it after the insert's commit and at most one at a time per process.

    `connection` must autocommit and have no transaction open. NOTIFY takes a lock of the whole server at
    commit, so a notification inside every inserting transaction would make them queue up.
    """
    connection.execute(_NOTIFY, prepare=False)


def listen(connection: Connection) -> None:
    """Subscribe `connection` to the wake-ups. Only a direct connection can."""
    connection.execute(_LISTEN)


# One message, and so one transaction. Nothing is written here whose loss a flush to disk could prevent;
# a SET without LOCAL would stay in a pooler's session for the orders that others commit in it.
_NOTIFY = f"SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}"
_LISTEN = f"LISTEN {CHANNEL}"

"""Where the database is: at DATABASE_URL, or in this checkout."""

from schema.runtime.config import DatabaseConfig


def resolve(config: DatabaseConfig) -> str:
    """Return the connection string to use, starting the embedded PostgreSQL if there is no other.

    Any number of processes may call this at once. Raises `SettingError` outside a checkout and without
    the `embedded` extra, `StartError` when the server can't be had.
    """
    if config.url is not None:
        return config.url
    # Imported only here: with DATABASE_URL set, nothing of the embedded server is loaded.
    from schema.embedded import checkout  # noqa: PLC0415

    return checkout.server().ensure_running()

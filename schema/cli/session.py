"""The connection that a command works on."""

from schema import revision
from schema.embedded import locate
from schema.runtime import startup
from schema.runtime.config import DatabaseConfig
from schema.runtime.connection import Connection


def connect(name: str = "orders") -> Connection:
    """Connect as `name` to a database that these programs fit.

    Raises `SettingError` and `StartError` as `locate.resolve`, `startup.connect` and `revision.check` do.
    """
    connection = startup.connect(locate.resolve(DatabaseConfig.from_environment()), name=name)
    revision.check(connection)
    return connection

"""The connection that a command works on, and what its loss means for the person who waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schema import revision
from schema.embedded import locate
from schema.errors import DatabaseError, StartError
from schema.runtime import settings, startup
from schema.runtime.connection import Connection


def connect(name: str = "orders") -> Connection:
    """Connect as `name` to a database that these programs fit.

    Raises `SettingError` and `StartError` as `locate.resolve`, `startup.connect` and `revision.check` do.
    """
    connection = startup.connect(locate.resolve(settings.DATABASE_URL.read()), name=name)
    revision.check(connection)
    return connection


@contextmanager
def resumable(progress: Callable[[], str]) -> Iterator[None]:
    """Run a command's body that goes on where it stopped when the command is given again.

    Raises `StartError` with the `progress` so far when the database fails or the person presses Ctrl-C.
    """
    try:
        yield
    except (DatabaseError, KeyboardInterrupt) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else error
        raise StartError(
            f"stopped {progress()} ({reason}): give the same command again to go on from there"
        ) from error

"""How every program begins: it waits a while for the database, and reports a failure in one line."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from schema.errors import (
    AccessDeniedError,
    DatabaseUnavailableError,
    OrdersError,
    OutcomeUnknownError,
    SettingError,
    StartError,
    StatementRefusedError,
)
from schema.runtime import logs, settings
from schema.runtime.connection import Connection

DATABASE_WAIT_SECONDS = 30.0
"""How long a program waits at its start for a database that can't be reached."""

_PAUSE_SECONDS = 0.5

Result = TypeVar("Result")

_log = logs.Log(__name__)


def exit_status(main: Callable[[], int]) -> int:
    """Run `main` and return its exit status; a bad setting is 2, any other error of ours 1, each one line."""
    try:
        return main()
    except OrdersError as error:
        print(_plain(_explained(error)), file=sys.stderr)
        return 2 if isinstance(error, SettingError) else 1
    except KeyboardInterrupt:
        return 130


def _plain(words: str) -> str:
    """Escape what does not print, line by line: a handler's or a database's words may be among them."""
    return "\n".join(map(logs.plain, words.split("\n")))


def _explained(error: OrdersError) -> str:
    """Say of a database's words, which are anything, what they are about."""
    if isinstance(error, AccessDeniedError):
        return f"the database (DATABASE_URL) does not let this program in: {error}"
    if isinstance(error, StatementRefusedError):
        return f"the database refuses this program: {error}"
    if isinstance(error, DatabaseUnavailableError):
        return f"the database is unavailable: {error}"
    if isinstance(error, OutcomeUnknownError):
        return f"the connection to the database was lost: {error}"
    return str(error)


def refuse_arguments(program: str, description: str) -> None:
    """Answer `--help`, and exit with status 2 on anything else: these programs take settings only."""
    argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Takes no arguments: environment variables say what it does. docs/settings.md lists them.",
    ).parse_args()


def report_unknown_settings() -> None:
    """Log each variable that is no setting though it looks like one: a misspelt setting has its default."""
    for name, near in settings.unknown():
        _log.warning("setting_unknown", name=name, nearest=near or None)


def connect(url: str, *, name: str) -> Connection:
    """Open a connection. While the database is away say so once and try again; then `StartError`.

    Raises `AccessDeniedError` at once: waiting mends no password.
    """
    return _patiently(lambda: Connection.open(url, name=name))


def first(url: str, *, name: str, work: Callable[[Connection], Result]) -> Result:
    """Do a program's first work in the database on a connection of its own, waiting as `connect` does.

    Does it again when the connection is lost meanwhile: what the loss left behind must do no harm.
    """

    def once() -> Result:
        with Connection.open(url, name=name) as connection:
            return work(connection)

    return _patiently(once)


def _patiently(work: Callable[[], Result]) -> Result:
    give_up_at = time.monotonic() + DATABASE_WAIT_SECONDS
    said = False
    while True:
        try:
            return work()
        except AccessDeniedError:
            raise
        except (DatabaseUnavailableError, OutcomeUnknownError) as error:
            if time.monotonic() >= give_up_at:
                raise StartError(f"no database within {DATABASE_WAIT_SECONDS:g} seconds: {error}") from error
            if not said:
                waiting = _plain(f"waiting for the database (DATABASE_URL): {error}")
                print(waiting, file=sys.stderr, flush=True)
                said = True
        time.sleep(_PAUSE_SECONDS)

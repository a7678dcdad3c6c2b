"""How every program here begins: it waits a little for the database, and ends with one clear line."""

import argparse
import sys
import time
from collections.abc import Callable

import psycopg

from schema import logs
from schema.connection import Connection
from schema.errors import DatabaseUnavailableError, SettingError, StartError

PATIENCE_SECONDS = 30.0
"""How long a program waits at its start for a database that can't be reached."""

_PAUSE_SECONDS = 0.5


def exit_status(main: Callable[[], int]) -> int:
    """Run `main` and return its exit status; a bad setting is 2, any other failed start 1, each one line."""
    try:
        return main()
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except psycopg.Error as error:
        print(f"the database refuses this program: {logs.first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def refuse_arguments(program: str, description: str) -> None:
    """Answer `--help`, and exit with status 2 on anything else: these programs take settings only."""
    argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Takes no arguments: environment variables say what it does. README.md lists them.",
    ).parse_args()


def connect(url: str, *, name: str, patience_seconds: float = PATIENCE_SECONDS) -> Connection:
    """Open a connection; while the database can't be reached say so once and try again, then `StartError`."""
    give_up_at = time.monotonic() + patience_seconds
    said = False
    while True:
        try:
            return Connection.open(url, name=name)
        except DatabaseUnavailableError as error:
            if time.monotonic() >= give_up_at:
                raise StartError(f"no database within {patience_seconds:g} seconds: {error}") from error
            if not said:
                print(f"waiting for the database (DATABASE_URL): {error}", file=sys.stderr, flush=True)
                said = True
        time.sleep(_PAUSE_SECONDS)

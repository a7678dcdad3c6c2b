"""`python -m schema.embedded`: start, stop, look into, back up and restore this checkout's PostgreSQL."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from schema.embedded import backup, checkout, psql
from schema.errors import SettingError
from schema.runtime.config import DatabaseConfig
from schema.runtime.startup import exit_status


def main() -> int:
    """Run one command and return its exit status."""
    return exit_status(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; `SettingError` and `StartError` pass through."""
    if arguments[:1] == ["psql"]:
        # Not by argparse, which would take psql's options for its own.
        psql.run(arguments[1:])
    parsed = _parser().parse_args(arguments)
    if DatabaseConfig.from_environment().url is not None:
        raise SettingError("DATABASE_URL", "set", f"unset it to {parsed.command} the embedded PostgreSQL")
    return _COMMANDS[parsed.command](parsed)


def _start(_: argparse.Namespace) -> int:
    print(checkout.server().ensure_running())
    return 0


def _url(_: argparse.Namespace) -> int:
    print(checkout.server().url)
    return 0


def _stop(_: argparse.Namespace) -> int:
    server = checkout.server()
    print(f"PostgreSQL in {server.place.folder} {'has stopped' if server.stop() else 'was not running'}")
    return 0


def _backup(parsed: argparse.Namespace) -> int:
    target = backup.take(checkout.server(), parsed.folder)
    print(f"Backed up and verified: {target}")
    print(f"To restore it: make stop-db, then make restore FROM={shlex.quote(os.fspath(target))}")
    return 0


def _restore(parsed: argparse.Namespace) -> int:
    aside = backup.restore(checkout.server(), parsed.folder)
    print(f"Restored from {parsed.folder}")
    if aside is not None:
        print(f"The data of before is in {aside}: remove it when you are sure")
    print("Start it: make run")
    return 0


_COMMANDS = {"start": _start, "url": _url, "stop": _stop, "backup": _backup, "restore": _restore}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m schema.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("start", help="start the server if it isn't running, and print its URL")
    commands.add_parser("url", help="print the server's URL, running or not")
    commands.add_parser("stop", help="stop the server")
    commands.add_parser("psql", help="open psql on DATABASE_URL or, if that is unset, on this server")
    take = commands.add_parser("backup", help="copy the data to a new folder while the server runs")
    take.add_argument("folder", type=Path, nargs="?", help="default: backups/<UTC time>")
    restore = commands.add_parser("restore", help="put a backup in place of the data")
    restore.add_argument("folder", type=Path, help="make restore FROM=FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(main())

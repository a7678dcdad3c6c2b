"""The console script `orders`: what an operator does to the queue as a whole."""

import argparse
from collections.abc import Sequence

from schema import fcfs, migrate, pause, revision, run, startup, wake
from schema.config import DatabaseConfig, ServiceConfig
from schema.connection import Connection


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for bad usage.

    It is 1 if the command could not be done, or found what should not be.
    """
    options = _parser().parse_args(arguments)
    return startup.exit_status(_COMMANDS[options.command])


def _migrate() -> int:
    url = DatabaseConfig.from_environment().resolve()
    startup.connect(url, name="orders-migrate").close()
    migrate.upgrade(url)
    print(f"the schema is at revision {revision.NEEDED}", flush=True)
    return 0


def _pause() -> int:
    with _connection() as connection:
        pause.pause(connection)
    print("paused: workers finish what they have and claim nothing new until `orders resume`")
    return 0


def _resume() -> int:
    with _connection() as connection:
        pause.resume(connection)
        wake.notify(connection)
    print("resumed")
    return 0


def _run() -> int:
    config = ServiceConfig.from_environment()
    _migrate()
    return run.run(config)


def _verify_fcfs() -> int:
    with _connection() as connection:
        connection.reply_seconds = fcfs.REPLY_SECONDS
        verdict = fcfs.check(connection)
    print(*verdict.lines(), sep="\n")
    return 0 if verdict.is_clean else 1


_COMMANDS = {
    "migrate": _migrate,
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "verify-fcfs": _verify_fcfs,
}


def _connection() -> Connection:
    connection = startup.connect(DatabaseConfig.from_environment().resolve(), name="orders")
    revision.check(connection)
    return connection


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orders", description="Operate the order queue.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("migrate", help="bring the database to the newest schema revision")
    commands.add_parser("pause", help="have every worker claim nothing new")
    commands.add_parser("resume", help="have the workers claim again")
    commands.add_parser("run", help="migrate, then run the API and one worker until Ctrl-C")
    commands.add_parser(
        "verify-fcfs", help="check that orders were claimed first come, first served, and once"
    )
    return parser

"""The console script `orders`: what an operator does to the queue as a whole."""

import argparse
from collections.abc import Callable, Sequence

from schema import migrate, revision
from schema.cli import import_orders, run
from schema.embedded import locate
from schema.queue import pause, tally, wake
from schema.reports import audit
from schema.runtime import startup
from schema.runtime.config import DatabaseConfig, ServiceConfig
from schema.runtime.connection import Connection


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for bad usage.

    It is 1 if the command could not be done, or found what should not be.
    """
    options = _parser().parse_args(arguments)
    if options.command == "import":
        return startup.exit_status(lambda: import_orders.run(options))
    command, _ = _COMMANDS[options.command]
    return startup.exit_status(command)


def _migrate() -> int:
    url = locate.resolve(DatabaseConfig.from_environment())
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
        connection.reply_seconds = audit.REPLY_SECONDS
        verdict = audit.check(connection)
    print(*verdict.lines(), sep="\n")
    return 0 if verdict.is_clean else 1


def _recount() -> int:
    with _connection() as connection:
        connection.reply_seconds = tally.RECOUNT_SECONDS
        tally.recount(connection)
    print("the tally is what the orders' rows say")
    return 0


def _connection() -> Connection:
    connection = startup.connect(locate.resolve(DatabaseConfig.from_environment()), name="orders")
    revision.check(connection)
    return connection


_COMMANDS: dict[str, tuple[Callable[[], int], str]] = {
    "migrate": (_migrate, "bring the database to the newest schema revision"),
    "pause": (_pause, "have every worker claim nothing new"),
    "resume": (_resume, "have the workers claim again"),
    "run": (_run, "migrate, then run the API and one worker until Ctrl-C"),
    "recount": (_recount, "make the tally of the metrics anew, after orders were written with triggers off"),
    "verify-fcfs": (_verify_fcfs, "check that orders were claimed first come, first served, and once"),
}
"""The commands that take no arguments, each with what it does."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orders", description="Operate the order queue.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, words) in _COMMANDS.items():
        commands.add_parser(name, help=words)
    import_orders.add_arguments(commands.add_parser("import", help="place the orders of a file"))
    return parser

"""The console script `orders`: its commands, and what becomes of a command line that it can't follow."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from schema.runtime import startup
from schema.runtime.logs import plain

_COMMANDS = {
    "run": "run.run",
    "migrate": "run.migrate",
    "show": "orders.show",
    "list": "orders.list_",
    "cancel": "orders.cancel",
    "redrive": "redrive.redrive",
    "import": "import_orders.import_",
    "pause": "queue.pause",
    "resume": "queue.resume",
    "verify-fcfs": "queue.verify_fcfs",
    "recount": "queue.recount",
    "grants": "grants.grants",
    "db": "database.db",
    "sql": "sql.sql",
}
"""Each command's module and its name there."""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(".")
        command: click.Command = getattr(importlib.import_module(f"schema.cli.{module}"), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        status = super().invoke(context)
        # Here, where click ends the program quietly when nobody reads on, as in `orders list | head`.
        sys.stdout.flush()
        return status


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="orders-queue", message="orders-queue %(version)s")
def orders() -> None:
    """Operate the order queue.

    DATABASE_URL says where it is; when that is not set, it is the PostgreSQL that this checkout brings. Every
    command that prints facts takes --json.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for bad usage or a bad setting.

    It is 1 if the command could not be done, or found what should not be, and 130 after Ctrl-C.
    """
    return startup.exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return orders.main(arguments, prog_name="orders", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        print(_explained(error), file=sys.stderr)
        return error.exit_code
    except click.Abort:
        return 130


def _explained(error: click.UsageError) -> str:
    """Say in one line what is wrong with a command line, and where to read what is right."""
    context = error.ctx or click.Context(orders, info_name="orders")
    words = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchCommand) and isinstance(context.command, click.Group):
        words += f" There are: {', '.join(context.command.list_commands(context))}."
    return plain(f"{context.command_path}: {words} See {context.command_path} --help.")

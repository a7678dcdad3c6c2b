"""`orders db`: the database itself, started and stopped, looked into, backed up and restored."""

import shlex
from datetime import UTC, datetime
from pathlib import Path

import click

from schema.cli.terminal import Answer, answering, warn_of_unknown_settings
from schema.embedded import client, dump, locate
from schema.embedded import restore as restoring
from schema.embedded.server import Server
from schema.errors import SettingError, StatementRefusedError
from schema.intake.files import path_text
from schema.queue import tally
from schema.runtime import settings
from schema.runtime.connection import Connection


class _Untouched(click.Command):
    """A command whose arguments are another program's, `--help` among them."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.params["arguments"] = tuple(arguments)
        return []


@click.group()
def db() -> None:
    """Start, stop, look into, back up and restore the database."""


@db.command()
@answering
def start() -> Answer:
    """Start the embedded PostgreSQL, and print its URL."""
    url = _embedded("start").ensure_running()
    return Answer([url], {"url": url})


@db.command()
@answering
def stop() -> Answer:
    """Stop the embedded PostgreSQL."""
    server = _embedded("stop")
    stopped = server.stop()
    line = f"PostgreSQL in {server.place.folder} {'has stopped' if stopped else 'was not running'}"
    return Answer([line], {"folder": server.place.folder, "stopped": stopped})


@db.command("url")
@answering
def show_url() -> Answer:
    """Print the URL of the embedded PostgreSQL, running or not."""
    url = _embedded("show").url
    return Answer([url], {"url": url})


@db.command(cls=_Untouched, options_metavar="[PSQL'S ARGUMENTS]")
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; all arguments are psql's."""
    warn_of_unknown_settings()
    client.current().become("psql", *arguments)


@db.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@answering
def backup(file: Path | None) -> Answer:
    """Back the database up into a file.

    Everything may run meanwhile. FILE must be new; by default it is backups/TIME.dump. It is verified before
    it gets its name. Grants, owners and settings of the database are not in it.
    """
    target = (file or Path("backups", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump")).absolute()
    dump.take(client.current(), target)
    shown = path_text(target)
    lines = [f"Backed up and verified: {shown}", f"To restore it: orders db restore {shlex.quote(shown)}"]
    return Answer(lines, {"file": shown})


@db.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@answering
def restore(file: Path) -> Answer:
    """Put a backup in the database's place.

    The database of before is kept under another name. Nobody may be connected to it: stop the API, the
    workers and psql first.
    """
    aside = restoring.restore(client.current(), file, prepare=_prepare)
    shown = path_text(file)
    drop = shlex.quote(f'DROP DATABASE "{aside}"')
    lines = [
        f"Restored from {shown}",
        f"The database of before is {aside}. When you are sure: orders db psql -c {drop}",
    ]
    return Answer(lines, {"file": shown, "kept_as": aside})


def _prepare(connection: Connection) -> None:
    try:
        tally.forget_floor(connection)
    except StatementRefusedError as error:
        # A dump of revision 0004 or older has no tally yet.
        if not error.is_undefined_table:
            raise


def _embedded(move: str) -> Server:
    if settings.DATABASE_URL.read() is not None:
        raise SettingError("DATABASE_URL", "set", f"unset it to {move} the embedded PostgreSQL")
    return locate.server()

"""Prepare the database, and start the programs that work on it."""

import click

from schema import migrate as migration
from schema import revision
from schema.cli import run as programs
from schema.cli.terminal import answer, document, json_option
from schema.embedded import locate
from schema.runtime import startup
from schema.runtime.config import DatabaseConfig, ServiceConfig


@click.command()
@json_option
def migrate(*, as_json: bool) -> None:
    """Bring the database to the newest schema revision."""
    _upgrade()
    lines = [f"the schema is at revision {revision.NEEDED}"]
    answer(document(revision=revision.NEEDED), lines, as_json=as_json)


@click.command()
def run() -> int:
    """Migrate, then run the API and one worker until Ctrl-C."""
    config = ServiceConfig.from_environment()
    _upgrade()
    print(f"the schema is at revision {revision.NEEDED}", flush=True)
    return programs.run(config)


def _upgrade() -> None:
    url = locate.resolve(DatabaseConfig.from_environment())
    startup.connect(url, name="orders-migrate").close()
    migration.upgrade(url)

"""`orders grants`: the privileges of the roles that the programs and their readers connect as."""

import click

from schema import grants as privileges
from schema.cli import session
from schema.cli.terminal import Answer, answering, example


@click.command(
    epilog=example(
        "A role for each, with no more than it needs:",
        "  orders grants --api api --worker worker --reader analyst --apply",
    )
)
@click.option("--api", metavar="ROLE", help="The role of orders-api, and of `orders import`.")
@click.option("--worker", metavar="ROLE", help="The role of orders-worker.")
@click.option(
    "--reader", metavar="ROLE", help="A role that only looks: `orders show`, `list`, `verify-fcfs`."
)
@click.option("--apply", "applied", is_flag=True, help="Run them as well.")
@answering
def grants(*, api: str | None, worker: str | None, reader: str | None, applied: bool) -> Answer:
    """Print the GRANT statements that roles need.

    Give them as the owner of the tables, and again after each `orders migrate`. Nothing is taken away that a
    role has beside. Commands that no option names are for the owner.
    """
    kinds = ((api, privileges.API), (worker, privileges.WORKER), (reader, privileges.READER))
    wanted = [(role, needed) for role, needed in kinds if role is not None]
    if not wanted:
        raise click.UsageError("Name a role: --api, --worker or --reader.")
    with session.connect() as connection:
        found = [each for role, needed in wanted for each in privileges.grants(connection, role, needed)]
        if applied:
            privileges.apply(connection, found)
    statements = [each.statement for each in found]
    return Answer([f"{each};" for each in statements], {"statements": statements, "applied": applied})

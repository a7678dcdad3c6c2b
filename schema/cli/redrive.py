"""`orders redrive`: put one failed order back in line, or all of them."""

import sys
from uuid import UUID

import click

from schema.cli import session
from schema.cli.orders import shown
from schema.cli.terminal import Answer, answering, example
from schema.queue import redrive as statements
from schema.queue import wake
from schema.runtime import settings
from schema.runtime.connection import Connection


@click.command(
    epilog=example(
        "Count what an outage has left behind, then work it once more:",
        "  orders redrive --all-failed --error-prefix ConnectionError --dry-run",
        "  orders redrive --all-failed --error-prefix ConnectionError --yes",
    )
)
@click.argument("order_id", type=click.UUID, metavar="[ID]", required=False)
@click.option("--all-failed", is_flag=True, help="Put all back in line that have failed by now.")
@click.option("--error-prefix", metavar="TEXT", help="Of those, only the ones whose last error begins so.")
@click.option("--attempts", type=click.IntRange(1, 1000), help="New attempts (ORDERS_MAX_ATTEMPTS, or 5).")
@click.option("--dry-run", is_flag=True, help="Say how many there are, and move none.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@answering
def redrive(
    order_id: UUID | None,
    *,
    all_failed: bool,
    error_prefix: str | None,
    attempts: int | None,
    dry_run: bool,
    yes: bool,
) -> Answer:
    """Put failed orders back in line.

    They go to its end, with new attempts. What fails meanwhile stays as it is, and so does an order that
    somebody has locked.
    """
    attempts = attempts or settings.MAX_ATTEMPTS.read()
    if all_failed == (order_id is not None):
        raise click.UsageError("Name one order, or say --all-failed.")
    if order_id is not None and (error_prefix is not None or dry_run or yes):
        raise click.UsageError("--error-prefix, --dry-run and --yes go with --all-failed.")
    if not (order_id or dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here: say --yes, or --dry-run to count only.")
    with session.connect() as connection:
        if order_id is not None:
            statements.redrive(connection, order_id, attempts=attempts)
            wake.notify(connection)
            return Answer([f"order {order_id} is back in line"], shown(connection, order_id))
        connection.reply_seconds = statements.FIND_SECONDS
        failed = statements.find_failed(connection, error_prefix=error_prefix)
        count = len(failed.order_ids)
        if dry_run:
            return Answer([f"{_orders(count)} would be moved"], {"matches": count})
        if count and not yes and not click.confirm(f"Put {_orders(count)} back in line?", err=True):
            print("none is moved", file=sys.stderr)
            raise click.exceptions.Exit(1)
        return _redrive_all(connection, failed, attempts=attempts)


def _redrive_all(connection: Connection, failed: statements.Failed, *, attempts: int) -> Answer:
    count, moved = len(failed.order_ids), 0
    with session.resumable(lambda: f"after {moved:,} of {_orders(count)}"):
        for step in statements.redrive_failed(connection, failed, attempts=attempts):
            moved += step
            wake.notify(connection)
    line = f"{_orders(moved)} moved, {count - moved:,} skipped"
    return Answer([line], {"matches": count, "moved": moved, "skipped": count - moved})


def _orders(count: int) -> str:
    return f"{count:,} failed order{'' if count == 1 else 's'}"

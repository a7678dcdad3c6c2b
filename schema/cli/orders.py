"""`orders show`, `list` and `cancel`: single orders."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from schema.cli import session
from schema.cli.terminal import Answer, answering, example, fitted, labelled
from schema.errors import OrderNotFoundError
from schema.queue import cancel as withdrawal
from schema.reports import lists
from schema.reports.show import show as look_up
from schema.runtime.connection import Connection
from schema.states import Status


@click.command()
@click.argument("order_id", type=click.UUID, metavar="ID")
@answering
def show(order_id: UUID) -> Answer:
    """Show all that is known of an order; times are UTC."""
    with session.connect() as connection:
        found = shown(connection, order_id)
    return Answer(_columns(found), found)


def shown(connection: Connection, order_id: UUID) -> str:
    """Return the order as a JSON object; raise `OrderNotFoundError` when there is none."""
    found = look_up(connection, [order_id])
    if order_id not in found:
        raise OrderNotFoundError(order_id)
    return found[order_id]


def _columns(order: str) -> Iterator[str]:
    facts = _read(order)
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else str("-" if value is None else value)
        yield from labelled(f"{name:<{width}}", text)


def _read(order: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(order, parse_float=Decimal)
    return found


@click.command(
    "list", epilog=example("What has failed last, and why:", "  orders list --status failed --limit 5")
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in Status], case_sensitive=False),
    multiple=True,
    help="Only orders in this state; may be given more than once.",
)
@click.option("--user", "user_id", metavar="ID", help="Only orders of this user.")
@click.option("--limit", type=click.IntRange(1, lists.LIMIT), default=20, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", help="Go on after an earlier page, which names its CURSOR.")
@answering
def list_(*, statuses: Sequence[str], user_id: str | None, limit: int, after: str | None) -> Answer:
    """List orders, newest first.

    With --status pending alone the order is that of the line, its end first.
    """
    chosen = {Status(status) for status in statuses}
    with session.connect() as connection:
        try:
            page = lists.page(connection, statuses=chosen, user_id=user_id, limit=limit, after=after)
        except lists.CursorError as error:
            raise click.BadParameter(str(error), param_hint="--after") from error
    document = f'{{"data": [{", ".join(page.orders)}], "next": {json.dumps(page.next)}}}'
    return Answer(_table(page), document, more=page.next and f"more: --after {page.next}")


def _table(page: lists.Page) -> Iterator[str]:
    """Yield a line for each order, and below it the error of its last attempt unless it is completed."""
    if not page.orders:
        yield "no orders"
        return
    yield f"{'ORDER_ID':<36}  {'STATUS':<10}  {'CREATED (UTC)':<16}  USER"
    for order in map(_read, page.orders):
        created = order["created_at"][:16].replace("T", " ")
        yield fitted(f"{order['order_id']}  {order['status']:<10}  {created}  {order['user_id']}")
        if order["last_error"] and order["status"] != "Completed":
            yield fitted(f"  {order['last_error'].partition(chr(10))[0]}")


@click.command()
@click.argument("order_id", type=click.UUID, metavar="ID")
@answering
def cancel(order_id: UUID) -> Answer:
    """Withdraw an order.

    One that waits is cancelled at once. One that is being worked on is cancelled when its handler agrees, or
    instead of a further attempt; if it completes first, it is completed.
    """
    with session.connect() as connection:
        status = withdrawal.cancel(connection, order_id)
        found = shown(connection, order_id)
    asked = status is Status.PROCESSING
    line = "is being worked on: its worker is asked to cancel it" if asked else "is cancelled"
    return Answer([f"order {order_id} {line}"], found)

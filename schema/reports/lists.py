"""List orders, newest first, a page at a time."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schema.errors import OrdersError
from schema.reports.show import SHOWN
from schema.runtime.connection import Connection
from schema.states import Status

LIMIT = 500
"""Orders that one page has at most."""


class CursorError(OrdersError):
    """What was given as the end of an earlier page was not given out as one."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the end of a page of this list")


@dataclass(frozen=True, slots=True)
class Page:
    """The JSON objects of `orders`, as `show` has them, and where the `next` page begins, None at the end."""

    orders: list[str]
    next: str | None


_AS_JSON = f"""
SELECT row_to_json(shown)::text
FROM (
    SELECT {SHOWN}
    FROM page
) AS shown
"""

# No index has this order: it reads the whole table, which takes half a second for a million orders.
_NEWEST = f"""
WITH page AS MATERIALIZED (
    SELECT *
    FROM orders
    WHERE (%(statuses)s::text[] IS NULL OR status = ANY (%(statuses)s::text[]))
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
      AND (created_at, order_id) < (%(key)s::timestamptz, %(order_id)s::uuid)
    ORDER BY created_at DESC, order_id DESC
    LIMIT %(limit)s::bigint
)
{_AS_JSON}
"""

# As the rescue does it: no order that a worker holds was claimed before its `oldest_claim_at`.
_PROCESSING = f"""
WITH page AS MATERIALIZED (
    SELECT *
    FROM orders
    WHERE started_at BETWEEN (
              SELECT COALESCE(min(COALESCE(oldest_claim_at, '-infinity')), 'infinity')
              FROM workers
              WHERE swept_at IS NULL)
          AND 'infinity'
      AND status = 'processing'
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
      AND (created_at, order_id) < (%(key)s::timestamptz, %(order_id)s::uuid)
    ORDER BY created_at DESC, order_id DESC
    LIMIT %(limit)s::bigint
)
{_AS_JSON}
"""

_PENDING = f"""
WITH page AS MATERIALIZED (
    SELECT *
    FROM orders
    WHERE in_line
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
      AND (seq, order_id) < (%(key)s::bigint, %(order_id)s::uuid)
    ORDER BY seq DESC, order_id DESC
    LIMIT %(limit)s::bigint
)
{_AS_JSON}
"""


def page(
    connection: Connection,
    *,
    statuses: Collection[Status] = (),
    user_id: str | None = None,
    limit: int = LIMIT,
    after: str | None = None,
) -> Page:
    """Return up to `limit` orders, those created last first, after the end of an earlier page.

    Of `statuses` (none: of all) and, if given, of one user. Pending ones alone come by ticket, the last in
    line first, through `orders_line`; processing ones alone through `orders_started`, without those that
    were given to an unknown worker by hand. All other lists read every order.

    Raises `CursorError` for an `after` that no page of the same list has as its `next`.
    """
    chosen = _chosen(set(statuses))
    key, order_id = chosen.read(after) if after else (chosen.beginning, UUID(int=0))
    values = {
        "statuses": [status.value for status in statuses] or None,
        "user_id": user_id,
        "key": key,
        "order_id": order_id,
        "limit": limit + 1,
    }
    orders = [order for (order,) in connection.execute(chosen.statement, values)]
    return Page(orders[:limit], chosen.end(orders[limit - 1]) if len(orders) > limit else None)


@dataclass(frozen=True, slots=True)
class _List:
    """A statement, the column it goes by, what is greater than any of that, and how its text is read."""

    statement: str
    column: str
    beginning: str | int
    parse: Callable[[str], datetime | int]

    def end(self, order: str) -> str:
        """Return the place of an order as the text that `read` takes."""
        shown = json.loads(order)
        return f"{shown[self.column]},{shown['order_id']}"

    def read(self, after: str) -> tuple[datetime | int, UUID]:
        """Return the place that the text names; raise `CursorError` when it names none."""
        key, _, order_id = after.partition(",")
        try:
            return self.parse(key), UUID(order_id)
        except ValueError:
            raise CursorError(after) from None


def _chosen(statuses: set[Status]) -> _List:
    if statuses == {Status.PENDING}:
        return _List(_PENDING, "seq", _GREATEST_TICKET, _ticket)
    statement = _PROCESSING if statuses == {Status.PROCESSING} else _NEWEST
    return _List(statement, "created_at", "infinity", datetime.fromisoformat)


_GREATEST_TICKET = 2**63 - 1


def _ticket(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _GREATEST_TICKET):
        raise ValueError
    return int(text)

"""The API with its statements left out: the floor of what HTTP, Falcon and waitress cost by themselves."""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from orders_api.__main__ import main
from schema import orders
from schema.orders import NewOrder, Order
from schema.states import Status
from schema.uuid7 import uuid7

_NOW = datetime.now(UTC)


def _submit(_connection: object, _order: NewOrder) -> UUID:
    return uuid7()


def _find(_connection: object, order_id: UUID) -> Order:
    return Order(
        order_id=order_id,
        seq=1,
        user_id="0" * 32,
        item_ids=["1" * 32, "2" * 32, "3" * 32],
        total_amount=Decimal("150.75"),
        status=Status.PENDING,
        attempt=0,
        attempt_limit=None,
        worker_id=None,
        created_at=_NOW,
        queued_at=_NOW,
        started_at=None,
        finished_at=None,
        retry_at=None,
        cancel_requested_at=None,
        last_error=None,
    )


if __name__ == "__main__":
    orders.submit = _submit
    orders.find = _find
    sys.exit(main())

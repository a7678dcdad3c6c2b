"""`POST /orders`, `POST /orders/batch` and `GET /orders/{order_id}`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import falcon

from orders_api.database.placing import Entrance
from orders_api.database.pool import Database
from orders_api.database.showing import Lookup
from orders_api.problems import NoOrderIdError, OutcomeUnknownError
from orders_api.requests import MAX_BATCH_BYTES, REPLAYED, idempotency_key, json_body
from schema import errors
from schema.errors import OrderNotFoundError, OrderNotTakenError
from schema.intake.parse import parse, parse_batch
from schema.order import Placed
from schema.queue import idempotency
from schema.queue.batch import submit_batch
from schema.runtime import logs

_log = logs.Log(__name__)
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class OrdersResource:
    """The way into the line. `submitted` is called after each new order's commit and must not block."""

    def __init__(self, database: Database, entrance: Entrance, submitted: Callable[[], None]) -> None:
        self._database = database
        self._entrance = entrance
        self._submitted = submitted

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store an order; 201 means that it is committed, now or when its key was first used."""
        key = idempotency_key(req)
        order = parse(json_body(req))
        with _storing(repeatable=key is not None):
            if key is None:
                placed = Placed(self._entrance.submit(order), replayed=False)
            else:
                with self._database.connection() as connection:
                    placed = idempotency.submit_once(connection, order, key=key)
        if placed.replayed:
            _log.info("order_replayed", order_id=placed.order_id)
            resp.set_header(REPLAYED, "true")
        else:
            self._submitted()
            _log.info("order_submitted", order_id=placed.order_id)
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{placed.order_id}"
        resp.media = {"message": "Order placed successfully", "order_id": str(placed.order_id)}


class BatchResource:
    """The line's entrance for many at once: all are placed, in their order, or none."""

    def __init__(self, database: Database, submitted: Callable[[], None]) -> None:
        self._database = database
        self._submitted = submitted

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store a batch; 201 means that all of it is committed, now or when its key was first used."""
        key = idempotency_key(req)
        batch = parse_batch(json_body(req, max_bytes=MAX_BATCH_BYTES))
        with _storing(repeatable=key is not None), self._database.connection() as connection:
            placed = submit_batch(connection, batch, key=key)
        event = "batch_replayed" if placed.replayed else "batch_submitted"
        _log.info(event, count=len(batch), first_order_id=placed.order_ids[0])
        if placed.replayed:
            resp.set_header(REPLAYED, "true")
        else:
            self._submitted()
        resp.status = falcon.HTTP_201
        resp.media = {
            "message": "Orders placed successfully",
            "order_ids": [str(order_id) for order_id in placed.order_ids],
        }


@contextmanager
def _storing(*, repeatable: bool) -> Iterator[None]:
    """Tell what went wrong while orders were stored; `repeatable` if an idempotency key came with them."""
    try:
        yield
    except OrderNotTakenError as error:
        _log.error("order_not_taken", error=error)
        raise
    except errors.OutcomeUnknownError as error:
        _log.warning("submit_outcome_unknown", error=error)
        raise OutcomeUnknownError(repeatable=repeatable) from error


class OrderResource:
    """One order."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def on_get(self, _req: falcon.Request, resp: falcon.Response, order_id: str) -> None:
        """Show the order as it stands."""
        if not _UUID.fullmatch(order_id):
            raise NoOrderIdError
        resp.text = self._lookup.show(UUID(order_id))
        if resp.text is None:
            raise OrderNotFoundError(UUID(order_id))

    on_head = on_get

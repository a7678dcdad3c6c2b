"""`POST /orders`, `POST /orders/batch` and `GET /orders/{order_id}`: HTTP alone."""

import re
from uuid import UUID

import falcon

from orders_api.database.placing import Placing
from orders_api.database.showing import Showing
from orders_api.problems import NoOrderIdError
from orders_api.requests import MAX_BATCH_BYTES, REPLAYED, idempotency_key, json_body
from schema.errors import OrderNotFoundError
from schema.intake.batch import parse_batch
from schema.intake.parse import parse

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class OrdersResource:
    """Takes an order into the line."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Place an order; 201 means that it is committed, now or when its key was first used."""
        key = idempotency_key(req)
        order = parse(json_body(req))
        placed = self._placing.place(order, key)
        if placed.replayed:
            resp.set_header(REPLAYED, "true")
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{placed.order_id}"
        resp.media = {"message": "Order placed successfully", "order_id": str(placed.order_id)}


class BatchResource:
    """Takes many orders into the line: all of them, in their order, or none."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Place a batch; 201 means that all of it is committed, now or when its key was first used."""
        key = idempotency_key(req)
        batch = parse_batch(json_body(req, max_bytes=MAX_BATCH_BYTES))
        placed = self._placing.place_batch(batch, key)
        if placed.replayed:
            resp.set_header(REPLAYED, "true")
        resp.status = falcon.HTTP_201
        resp.media = {
            "message": "Orders placed successfully",
            "order_ids": [str(order_id) for order_id in placed.order_ids],
        }


class OrderResource:
    """One order."""

    def __init__(self, showing: Showing) -> None:
        self._showing = showing

    def on_get(self, _req: falcon.Request, resp: falcon.Response, order_id: str) -> None:
        """Show the order as it is now."""
        if not _UUID.fullmatch(order_id):
            raise NoOrderIdError
        resp.text = self._showing.show(UUID(order_id))
        if resp.text is None:
            raise OrderNotFoundError(UUID(order_id))

    on_head = on_get

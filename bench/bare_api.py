"""The API with its statements left out: the floor of what HTTP, Falcon and waitress cost by themselves."""

import sys
from collections.abc import Iterable
from uuid import UUID

from orders_api.__main__ import main
from schema.order import NewOrder
from schema.queue import submit
from schema.reports import show
from schema.uuid7 import uuid7

_ORDER = (
    '{"order_id":"%s","status":"Pending","user_id":"5c9d1b0a-4a9e-4d0e-9f5b-3f4b0f8f3c7e",'
    '"item_ids":["1b0ec5b9-a265-4bfa-8b74-78653a0ac7d7","0c618479-0aad-43a0-bf50-200b6bf59eff",'
    '"17969bd8-50ca-485f-be45-9d6756fbf51b"],"total_amount":150.75,"seq":500,"attempt":0,"attempt_limit":null,'
    '"worker_id":null,"created_at":"2026-11-26T04:51:33.917788Z","queued_at":"2026-11-26T04:51:33.917788Z",'
    '"started_at":null,"finished_at":null,"retry_at":null,"cancel_requested_at":null,"last_error":null}'
)


def _submit_all(_connection: object, new: list[NewOrder]) -> list[UUID]:
    return [uuid7() for _ in new]


def _show(_connection: object, order_ids: Iterable[UUID]) -> dict[UUID, str]:
    return {order_id: _ORDER % order_id for order_id in order_ids}


if __name__ == "__main__":
    submit.submit_all = _submit_all
    show.show = _show
    sys.exit(main())

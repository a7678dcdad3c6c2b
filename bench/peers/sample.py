"""The order that every peer written in Python is given; `order.mjs` is the same for the others."""

from typing import Any
from uuid import uuid4


def order() -> dict[str, Any]:
    """Return an order of the size that all are measured with."""
    item_ids = [str(uuid4()) for _ in range(3)]
    return {"user_id": str(uuid4()), "item_ids": item_ids, "total_amount": 150.75}

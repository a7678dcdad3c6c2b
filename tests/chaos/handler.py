"""The handler of the workers under test: it does what the order's items say, and keeps a ledger.

The ledger has no constraint that could hide a second effect.
"""

import os
import time

from orders_worker.attempt.context import Context
from orders_worker.handler import Reject
from schema.order import Claim

EXIT_STATUS = 70
"""How a worker ends whose handler ended the process."""

LEDGER = """
CREATE TABLE ledger (
    order_id uuid NOT NULL,
    amount numeric(14, 2) NOT NULL,
    attempt integer NOT NULL,
    pid integer NOT NULL
)
"""

_ENTER = "INSERT INTO ledger (order_id, amount, attempt, pid) VALUES (%s, %s, %s, %s)"


def handle(order: Claim, context: Context) -> None:
    """Act out `item_ids`: how to behave, for how many seconds, and whether to write into the ledger."""
    behaviour, seconds, effect = order.item_ids
    if behaviour == "sleep-before":
        time.sleep(float(seconds))
    if effect == "ledger":
        entry = (order.order_id, order.total_amount, order.attempt, os.getpid())
        context.transaction().execute(_ENTER, entry)
    if behaviour == "sleep-after":
        time.sleep(float(seconds))
    if behaviour == "reject":
        raise Reject("as ordered")
    if context.attempt == 1:
        _misbehave(behaviour, seconds=float(seconds))
    if context.attempt < 3 and behaviour == "raise-twice":
        raise RuntimeError("as ordered, twice")


def _misbehave(behaviour: str, *, seconds: float) -> None:
    if behaviour == "raise-once":
        raise RuntimeError("as ordered")
    if behaviour == "hang":
        time.sleep(seconds)
    if behaviour == "exit":
        os._exit(EXIT_STATUS)

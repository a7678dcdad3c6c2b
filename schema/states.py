"""The state machine of an order: its states, the moves between them, and which states are final.

The database's CHECK constraints (`schema.tables`) enforce the shape of each state, and its trigger function
`orders_tally_update` (migration 0008) that a final one is left by a redrive only, whoever writes; the
statements in `schema.queue` enforce the other moves. `tests/tables/test_states.py` proves that all agree, and
`docs/states.md` draws them.
"""

from enum import StrEnum


class Status(StrEnum):
    """The text in `orders.status`."""

    PENDING = "pending"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[Status, dict[str, Status]] = {
    Status.PENDING: {"claim": Status.PROCESSING, "cancel": Status.CANCELLED},
    Status.PROCESSING: {
        "complete": Status.COMPLETED,
        "retry": Status.RETRYING,
        "exhaust": Status.FAILED,
        "reject": Status.FAILED,
        "release": Status.PENDING,
        "rescue": Status.PENDING,
        "cancel": Status.CANCELLED,
    },
    Status.RETRYING: {"fall due": Status.PENDING, "cancel": Status.CANCELLED},
    Status.COMPLETED: {},
    Status.FAILED: {"redrive": Status.PENDING},
    Status.CANCELLED: {},
}
"""The moves out of each state, by name, and where each leads.

`exhaust` stands for a retry or a rescue of an order that has no attempt left.
"""

ATTEMPTS_CEILING = 1_000_000
"""No order is claimed more often. The CASE in `queue/endings` ends one there: CHECKs refuse all else."""

FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
"""In these states an order has a `finished_at`, and the database refuses to let it out but by a redrive."""


class Outcome(StrEnum):
    """The text in `attempts.outcome`: how an attempt ended that did not complete its order."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    RELEASED = "released"
    RESCUED = "rescued"
    CANCELLED = "cancelled"

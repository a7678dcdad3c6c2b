"""The order's state machine: its states, its transitions, and which of them are final.

The database enforces the shape of each state (`schema.tables`, CHECK constraints); the statements in
this package enforce the transitions. `tests/tables/test_states.py` proves that the three agree.
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
    Status.PENDING: {
        "claim": Status.PROCESSING,
        "cancel": Status.CANCELLED,
    },
    Status.PROCESSING: {
        "complete": Status.COMPLETED,
        "retry": Status.RETRYING,
        "exhaust": Status.FAILED,
        "reject": Status.FAILED,
        "release": Status.PENDING,
        "rescue": Status.PENDING,
        "cancel": Status.CANCELLED,
    },
    Status.RETRYING: {
        "fall due": Status.PENDING,
        "cancel": Status.CANCELLED,
    },
    Status.COMPLETED: {},
    Status.FAILED: {"redrive": Status.PENDING},
    Status.CANCELLED: {},
}
"""What leaves each state, by the name of the move. `exhaust` is a retry or a rescue with no attempt left."""

FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
"""The states in which an order has a `finished_at` and no worker touches it. Only a redrive leaves one."""


class Outcome(StrEnum):
    """The text in `attempts.outcome`: how an attempt that did not complete ended."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    RELEASED = "released"
    RESCUED = "rescued"
    CANCELLED = "cancelled"

"""Commit a handler's transaction with the order's completion in it, and find out whether it happened."""

import time
from collections.abc import Callable
from enum import Enum, auto

from orders_worker.attempt.transaction import MARK, HandlerConnection, TransactionOverError
from schema.errors import DatabaseUnavailableError, OutcomeUnknownError
from schema.order import Fence
from schema.queue import completion
from schema.queue.completion import ClaimState
from schema.runtime.connection import Connection

PAUSE_SECONDS = 0.2


class Committed(Enum):
    """What became of a handler's transaction."""

    YES = auto()
    NO = auto()
    LOST = auto()


def commit(
    connection: HandlerConnection,
    worker_id: str,
    *,
    fence: Fence,
    probe: Callable[[], Connection],
    wanted: Callable[[], bool],
) -> Committed:
    """Complete the claim in the open transaction of `connection` and commit both.

    LOST means that the claim is somebody else's and nothing was written. While the order's row is locked it
    tries again, as long as `wanted`. If the connection breaks, `probe` opens another one that reads the
    fence. Errors of the handler's own making, such as a deferred constraint, are raised;
    `TransactionOverError` when it has ended the transaction that it was given.
    """
    while not completion.complete(connection, worker_id, fence=fence, mark=MARK):
        if not connection.intact():
            raise TransactionOverError
        if completion.claim_state(connection, worker_id, fence=fence) is not ClaimState.HELD or not wanted():
            return Committed.LOST
        time.sleep(PAUSE_SECONDS)
    try:
        connection.settle()
    except OutcomeUnknownError:
        return _resolve(worker_id, fence, probe=probe, wanted=wanted)
    return Committed.YES


def _resolve(
    worker_id: str, fence: Fence, *, probe: Callable[[], Connection], wanted: Callable[[], bool]
) -> Committed:
    """Read what a broken COMMIT did, waiting until the database is back and the old session is over."""
    while wanted():
        try:
            with probe() as connection:
                state = completion.claim_state(connection, worker_id, fence=fence)
                if state is ClaimState.COMPLETED:
                    return Committed.YES
                if state is ClaimState.LOST:
                    return Committed.LOST
                if completion.is_free(connection, worker_id, fence=fence):
                    return Committed.NO
        except (OutcomeUnknownError, DatabaseUnavailableError):
            pass
        time.sleep(PAUSE_SECONDS)
    return Committed.LOST

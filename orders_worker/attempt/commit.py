"""Commit a handler's transaction with the order's completion in it, and find out whether it happened."""

import time
from collections.abc import Callable

from orders_worker.attempt.transaction import MARK, HandlerConnection, TransactionError, TransactionOverError
from schema.errors import DatabaseUnavailableError, OutcomeUnknownError
from schema.order import Fence
from schema.queue import completion
from schema.queue.completion import ClaimState
from schema.runtime.connection import Connection

PAUSE_SECONDS = 0.2


def commit(
    connection: HandlerConnection,
    worker_id: str,
    *,
    fence: Fence,
    probe: Callable[[], Connection],
    wanted: Callable[[], bool],
) -> bool:
    """Complete the claim in the open transaction of `connection` and commit both.

    Returns False, nothing written, when the claim is lost. While the order's row is locked it tries again, as
    long as `wanted`. If the connection breaks, `probe` opens another one that reads the fence. Raises
    `TransactionError` when nothing was committed, or when the handler has ended the transaction that it was
    given; errors of its own making, such as a deferred constraint, as psycopg's.
    """
    connection.reclaim()
    if not connection.in_transaction:
        raise TransactionOverError
    while not completion.complete(connection, worker_id, fence=fence, mark=MARK):
        if not connection.intact():
            raise TransactionOverError
        if completion.claim_state(connection, worker_id, fence=fence) is not ClaimState.HELD or not wanted():
            return False
        time.sleep(PAUSE_SECONDS)
    try:
        connection.commit_for_the_worker()
    except OutcomeUnknownError as error:
        state = _resolve(worker_id, fence, probe=probe, wanted=wanted)
        if state is ClaimState.HELD:
            raise TransactionError("the connection was lost before the commit") from error
        return state is ClaimState.COMPLETED
    return True


def _resolve(
    worker_id: str, fence: Fence, *, probe: Callable[[], Connection], wanted: Callable[[], bool]
) -> ClaimState:
    """Read what a broken COMMIT did, waiting until the database is back and the old session is over."""
    while wanted():
        try:
            with probe() as connection:
                state = completion.claim_state(connection, worker_id, fence=fence)
                if state is not ClaimState.HELD or completion.is_free(connection, worker_id, fence=fence):
                    return state
        except (OutcomeUnknownError, DatabaseUnavailableError):
            pass
        time.sleep(PAUSE_SECONDS)
    return ClaimState.LOST

from collections.abc import Callable

import pytest

from schema.order import Claim, Fence
from schema.queue import completion
from schema.queue.completion import ClaimState
from schema.runtime.connection import Connection
from tests.rows import Queue


@pytest.fixture
def claim(queue: Queue) -> Claim:
    queue.worker()
    queue.insert()
    (claimed,) = queue.claim()
    assert isinstance(claimed, Claim)
    return claimed


def test_completion_commits_with_what_the_transaction_wrote(
    queue: Queue, claim: Claim, connect: Callable[[], Connection]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    handler = connect()

    for end in ("ROLLBACK", "COMMIT"):
        handler.execute("BEGIN")
        handler.execute("INSERT INTO ledger VALUES (%s)", (claim.order_id,))
        assert completion.complete(handler, "w", fence=claim.fence)
        assert queue.status(claim.order_id) == "processing"
        handler.execute(end)

    assert queue.status(claim.order_id) == "completed"
    assert queue.value("SELECT count(*) FROM ledger") == 1


def test_completion_of_a_claim_that_is_somebody_else_s_writes_nothing(queue: Queue, claim: Claim) -> None:
    before = queue.snapshot()

    assert not completion.complete(queue.connection, "v", fence=claim.fence)
    assert not completion.complete(queue.connection, "w", fence=Fence(claim.order_id, 2))
    assert queue.snapshot() == before


def test_completion_of_a_locked_order_does_not_wait(
    queue: Queue, claim: Claim, lock: Callable[..., Connection]
) -> None:
    lock(claim.order_id)

    assert not completion.complete(queue.connection, "w", fence=claim.fence)
    assert completion.claim_state(queue.connection, "w", fence=claim.fence) is ClaimState.HELD


def test_claim_is_free_unless_somebody_has_its_row_or_it_is_lost(
    queue: Queue, claim: Claim, lock: Callable[..., Connection]
) -> None:
    assert completion.is_free(queue.connection, "w", fence=claim.fence)
    assert not completion.is_free(queue.connection, "v", fence=claim.fence)
    lock(claim.order_id)
    assert not completion.is_free(queue.connection, "w", fence=claim.fence)


def test_claim_stands_held_then_completed_and_for_others_lost(queue: Queue, claim: Claim) -> None:
    held = completion.claim_state(queue.connection, "w", fence=claim.fence)
    queue.exchange(finished=[claim.fence])
    completed = completion.claim_state(queue.connection, "w", fence=claim.fence)

    assert (held, completed) == (ClaimState.HELD, ClaimState.COMPLETED)
    assert completion.claim_state(queue.connection, "v", fence=claim.fence) is ClaimState.LOST
    assert completion.claim_state(queue.connection, "w", fence=Fence(claim.order_id, 2)) is ClaimState.LOST


def test_claim_that_failed_is_lost_to_its_worker(queue: Queue, claim: Claim) -> None:
    queue.change(claim.order_id, "status = 'failed', finished_at = clock_timestamp()")

    assert completion.claim_state(queue.connection, "w", fence=claim.fence) is ClaimState.LOST

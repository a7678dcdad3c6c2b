from collections.abc import Callable
from datetime import timedelta

import pytest

from schema.order import Claim, Fence
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from tests.rows import Queue


@pytest.fixture
def claim(queue: Queue) -> Claim:
    queue.worker()
    queue.insert()
    (claimed,) = queue.claim()
    assert isinstance(claimed, Claim)
    return claimed


@pytest.mark.parametrize("outcome", [Outcome.RAISED, Outcome.TIMED_OUT, Outcome.CANCELLED])
def test_failed_attempt_waits_out_its_backoff_in_its_old_place(
    queue: Queue, claim: Claim, outcome: Outcome
) -> None:
    before = queue.row(claim.order_id)
    began = queue.now()

    queue.end(claim.fence, outcome=outcome, error="no stock", retry_seconds=30)

    row = queue.row(claim.order_id)
    assert (row.status, row.attempt, row.attempt_limit) == ("retrying", 1, 5)
    assert began + timedelta(seconds=30) <= row.retry_at <= queue.now() + timedelta(seconds=30)
    assert (row.seq, row.queued_at) == (before.seq, before.queued_at)
    assert (row.worker_id, row.started_at, row.last_error) == (None, None, "no stock")


def test_last_attempt_fails_the_order(queue: Queue, claim: Claim) -> None:
    queue.change(claim.order_id, "attempt_limit = 1")

    queue.end(claim.fence, outcome=Outcome.RAISED, error="no stock")

    row = queue.row(claim.order_id)
    assert (row.status, row.last_error, row.retry_at) == ("failed", "no stock", None)
    assert (row.worker_id, row.started_at) == ("w", claim.started_at)
    assert row.finished_at >= claim.started_at


def test_rejected_order_fails_with_attempts_left(queue: Queue, claim: Claim) -> None:
    queue.end(claim.fence, outcome=Outcome.REJECTED, error="unknown item")

    row = queue.row(claim.order_id)
    assert (row.status, row.attempt, row.attempt_limit) == ("failed", 1, 5)
    assert row.last_error == "unknown item"


def test_released_order_has_its_old_place_and_its_attempt_back(queue: Queue, claim: Claim) -> None:
    before = queue.row(claim.order_id)

    queue.end(claim.fence, outcome=Outcome.RELEASED)

    row = queue.row(claim.order_id)
    assert (row.status, row.seq, row.attempt, row.attempt_limit) == ("pending", before.seq, 1, 6)
    assert (row.worker_id, row.started_at) == (None, None)
    assert row.queued_at > claim.started_at > before.queued_at
    (again,) = queue.claim()
    assert (again.attempt, again.attempt_limit) == (2, 6)


def test_release_of_an_order_without_a_limit_sets_none(queue: Queue, claim: Claim) -> None:
    queue.change(claim.order_id, "attempt_limit = NULL")

    queue.end(claim.fence, outcome=Outcome.RELEASED)

    assert queue.row(claim.order_id).attempt_limit is None


def test_release_beyond_the_limit_leaves_one_attempt(queue: Queue) -> None:
    queue.worker()
    order_id = queue.insert("processing", attempt=7, attempt_limit=3)

    queue.end(Fence(order_id, 7), outcome=Outcome.RELEASED)

    row = queue.row(order_id)
    assert (row.status, row.attempt, row.attempt_limit) == ("pending", 7, 8)


def test_release_of_the_last_attempt_that_can_be_counted_fails(queue: Queue) -> None:
    queue.worker()
    order_id = queue.insert("processing", attempt=1_000_000, attempt_limit=None)

    queue.end(Fence(order_id, 1_000_000), outcome=Outcome.RELEASED)

    assert queue.status(order_id) is Status.FAILED


@pytest.mark.parametrize("outcome", [Outcome.RAISED, Outcome.TIMED_OUT, Outcome.RELEASED, Outcome.CANCELLED])
def test_requested_cancel_wins_over_every_return(queue: Queue, claim: Claim, outcome: Outcome) -> None:
    queue.change(claim.order_id, "cancel_requested_at = clock_timestamp()")

    queue.end(claim.fence, outcome=outcome)

    row = queue.row(claim.order_id)
    assert (row.status, row.worker_id, row.retry_at) == ("cancelled", "w", None)
    assert row.finished_at >= row.cancel_requested_at


def test_earlier_error_stays_when_an_attempt_ends_without_one(queue: Queue, claim: Claim) -> None:
    queue.change(claim.order_id, "last_error = 'earlier'")

    queue.end(claim.fence, outcome=Outcome.RELEASED)

    assert queue.row(claim.order_id).last_error == "earlier"


@pytest.mark.parametrize("outcome", Outcome)
def test_each_attempt_that_does_not_complete_leaves_its_row(
    queue: Queue, claim: Claim, outcome: Outcome
) -> None:
    queued_at = queue.row(claim.order_id).queued_at

    queue.end(claim.fence, outcome=outcome, error="because")

    (attempt,) = queue.attempts(claim.order_id)
    assert (attempt.seq, attempt.queued_at) == (claim.seq, queued_at)
    assert (attempt.attempt, attempt.worker_id, attempt.outcome) == (1, "w", outcome)
    assert (attempt.started_at, attempt.error) == (claim.started_at, "because")
    assert claim.started_at < attempt.ended_at <= queue.now()


def test_attempt_that_is_recorded_already_is_kept_and_the_order_moves(queue: Queue, claim: Claim) -> None:
    queue.connection.execute(
        "INSERT INTO attempts (order_id, attempt, outcome, error) VALUES (%s, 1, 'raised', 'by hand')",
        (claim.order_id,),
    )

    queue.end(claim.fence, outcome=Outcome.REJECTED, error="anew")

    assert queue.status(claim.order_id) is Status.FAILED
    assert [attempt.error for attempt in queue.attempts(claim.order_id)] == ["by hand"]


@pytest.mark.parametrize(("worker_id", "attempt"), [("v", 1), ("w", 2), ("w", 0)])
def test_end_of_a_claim_that_is_somebody_else_s_changes_nothing(
    queue: Queue, claim: Claim, worker_id: str, attempt: int
) -> None:
    before = queue.snapshot()
    fence = Fence(claim.order_id, attempt)

    unwritten = queue.end(fence, outcome=Outcome.RAISED, worker_id=worker_id)

    assert (unwritten.busy, unwritten.lost) == (set(), {fence})
    assert queue.snapshot() == before
    assert queue.attempts(claim.order_id) == []


def test_end_that_was_written_already_is_lost(queue: Queue, claim: Claim) -> None:
    queue.end(claim.fence, outcome=Outcome.RELEASED)
    before = queue.snapshot()

    assert queue.end(claim.fence, outcome=Outcome.RELEASED).lost == {claim.fence}
    assert queue.snapshot() == before


def test_earlier_attempt_at_an_order_is_lost_beside_the_present_one(queue: Queue, claim: Claim) -> None:
    queue.end(claim.fence, outcome=Outcome.RELEASED)
    (present,) = queue.claim()

    assert queue.end(claim.fence, present.fence, outcome=Outcome.RAISED).lost == {claim.fence}
    assert queue.status(claim.order_id) is Status.RETRYING


def test_locked_order_is_busy_and_the_other_ends_are_written_at_once(
    queue: Queue, claim: Claim, lock: Callable[..., Connection]
) -> None:
    queue.line(2)
    first, second = (claim.fence for claim in queue.claim(free=2))
    psql = lock(claim.order_id)

    unwritten = queue.end(first, claim.fence, second, outcome=Outcome.RAISED)

    assert psql.info.transaction_status.name == "INTRANS"
    assert (unwritten.busy, unwritten.lost) == ({claim.fence}, set())
    assert [queue.status(fence.order_id) for fence in (first, second)] == ["retrying", "retrying"]
    psql.execute("ROLLBACK")
    assert queue.end(claim.fence, outcome=Outcome.RAISED).busy == set()


def test_each_order_of_a_batch_gets_its_own_end(queue: Queue) -> None:
    queue.worker()
    queue.line(3)
    first, second, third = queue.claim(free=3)
    queue.change(third.order_id, "cancel_requested_at = clock_timestamp()")

    queue.end(first.fence, second.fence, third.fence, outcome=Outcome.RAISED, error="x")

    assert [queue.status(claim.order_id) for claim in (first, second, third)] == [
        "retrying",
        "retrying",
        "cancelled",
    ]


def test_no_endings_are_nothing_to_do(queue: Queue) -> None:
    unwritten = queue.end(outcome=Outcome.RAISED)

    assert (unwritten.busy, unwritten.lost) == (set(), set())

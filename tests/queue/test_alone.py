"""Orders whose workers died with them twice in a row: one runs with nothing else in its worker process."""

from collections.abc import Callable
from uuid import UUID

import pytest

from schema.queue import redrive, rescue
from schema.queue.exchange import recover_claims
from schema.runtime.connection import Connection
from schema.states import Outcome
from tests.rows import LONG_AGO, Queue


@pytest.fixture(autouse=True)
def workers(queue: Queue) -> None:
    """Two workers: "w" has fewer slots, so it is in charge."""
    queue.worker("w", slots=2, oldest_claim_at=queue.now())
    queue.worker("v", slots=3, oldest_claim_at=queue.now())


def alone(queue: Queue) -> UUID:
    return queue.insert(attempt=2, attempt_limit=5, rescues=2)


def claimed(queue: Queue, worker_id: str, *, idle: bool | None, floor: int = 0, free: int = 10) -> list[UUID]:
    exchanged = queue.exchange(worker_id, free=free, idle=idle, floor=floor)
    return [claim.order_id for claim in exchanged.claimed]


def test_rescues_are_counted_in_a_row(queue: Queue) -> None:
    (order_id,) = queue.line(1)
    counts: list[int | None] = []

    for outcome in (Outcome.RESCUED, Outcome.RELEASED, Outcome.RESCUED, Outcome.RAISED, Outcome.RESCUED):
        if outcome is Outcome.RESCUED:
            dying = queue.worker(f"dying {len(counts)}")
            queue.claim(dying)
            queue.change_worker(dying, "dead_at = clock_timestamp()")
            rescue.sweep(queue.connection)
        else:
            (claim,) = queue.claim()
            queue.end(claim.fence, outcome=outcome)
            queue.change(order_id, "status = 'pending', retry_at = NULL")
        counts.append(queue.row(order_id).rescues)

    assert counts == [1, 1, 2, None, 1]


@pytest.mark.parametrize("rescues", [-1, 2**31 - 1])
def test_count_that_somebody_wrote_by_hand_keeps_no_order_from_coming_back(
    queue: Queue, rescues: int
) -> None:
    dying = queue.worker("dying", dead_at=queue.now())
    order_id = queue.insert("processing", worker_id=dying, rescues=rescues)

    rescue.sweep(queue.connection)

    assert queue.row(order_id).status == "pending"


def test_idle_worker_claims_one_that_runs_alone_by_itself(queue: Queue) -> None:
    orders = [alone(queue), alone(queue), *queue.line(2)]

    assert claimed(queue, "v", idle=True) == orders[:1]
    assert claimed(queue, "v", idle=True) == orders[1:2]
    assert claimed(queue, "v", idle=True) == orders[2:]


def test_claim_says_that_it_runs_alone_also_when_it_is_recovered(queue: Queue) -> None:
    alone(queue)

    (claim,) = queue.exchange("v", free=1).claimed

    assert (claim.rescues, claim.runs_alone) == (2, True)
    assert recover_claims(queue.connection, "v", held=[], since=LONG_AGO) == [claim]


def test_idle_worker_claims_what_is_before_one_that_runs_alone_and_nothing_behind_it(queue: Queue) -> None:
    fresh, returned = queue.insert(seq=10), queue.insert(seq=11, attempt=1, attempt_limit=5)
    queue.insert(seq=12, attempt=2, attempt_limit=5, rescues=2)
    queue.insert(seq=13)
    queue.insert(seq=14, attempt=1, attempt_limit=5)

    assert claimed(queue, "v", idle=True) == [fresh, returned]


def test_exchange_tells_whether_one_that_runs_alone_is_in_line(queue: Queue) -> None:
    queue.insert(attempt=1, attempt_limit=5, rescues=1)
    queue.insert("processing", attempt=3, attempt_limit=5, rescues=2)
    before = queue.exchange(idle=None).alone_waits
    alone(queue)

    assert (before, queue.exchange(idle=None).alone_waits) == (False, True)


@pytest.mark.parametrize("idle", [False, None])
@pytest.mark.parametrize("floor", [0, 1000])
def test_worker_that_is_busy_or_does_not_ask_passes_one_that_runs_alone(
    queue: Queue, floor: int, *, idle: bool | None
) -> None:
    alone(queue)
    behind = [queue.insert(attempt=1, attempt_limit=5), queue.insert(seq=1000)]

    assert claimed(queue, "v", idle=idle, floor=floor) == behind


@pytest.mark.parametrize("floor", [0, 1000])
def test_busy_worker_in_charge_passes_none_so_that_it_is_idle_soon(queue: Queue, floor: int) -> None:
    before = queue.insert(attempt=1, attempt_limit=5)
    alone(queue)
    queue.insert(attempt=1, attempt_limit=5)
    queue.insert(seq=1000)

    assert claimed(queue, "w", idle=False, floor=floor) == [before]
    assert claimed(queue, "w", idle=False, floor=floor) == []


def test_worker_in_charge_is_a_living_one_with_the_fewest_slots(queue: Queue) -> None:
    queue.worker("dead", slots=1, oldest_claim_at=queue.now(), dead_at=queue.now())
    queue.worker("wide", slots=1000, oldest_claim_at=queue.now())
    alone(queue)
    behind = queue.line(1)

    assert claimed(queue, "w", idle=False) == []
    assert claimed(queue, "wide", idle=False) == behind


def test_worker_with_a_claim_of_more_than_ten_minutes_is_not_in_charge(queue: Queue) -> None:
    queue.change_worker("w", "oldest_claim_at = clock_timestamp() - INTERVAL '601 seconds'")
    alone(queue)
    behind = queue.line(1)

    assert claimed(queue, "v", idle=False) == []
    assert claimed(queue, "w", idle=False) == behind


def test_one_that_runs_alone_and_is_locked_holds_nobody_up(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    lock(alone(queue))
    behind = queue.line(2)

    assert claimed(queue, "w", idle=False, free=1) == behind[:1]
    assert claimed(queue, "v", idle=True) == behind[1:]


def test_redriven_order_runs_alone_if_its_last_workers_died(queue: Queue) -> None:
    order_id = queue.insert("failed", rescues=5)
    redrive.redrive(queue.connection, order_id, attempts=1)
    queue.line(1)

    assert claimed(queue, "v", idle=True) == [order_id]


@pytest.mark.parametrize("cannot", ["dead_at = clock_timestamp()", None])
def test_nobody_claims_it_who_may_claim_nothing(queue: Queue, cannot: str | None) -> None:
    alone(queue)
    if cannot:
        queue.change_worker("v", cannot)
    else:
        queue.connection.execute("UPDATE queue SET paused_at = clock_timestamp()")

    assert claimed(queue, "v", idle=True) == []

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from schema.queue import redrive
from schema.reports import audit
from schema.reports.verdict import DoubleStart, Evidence, SharedTicket, Turn, Verdict
from schema.runtime.connection import Connection
from schema.states import Outcome
from tests.rows import LONG_AGO, Queue


def at(seconds: float) -> datetime:
    return LONG_AGO + timedelta(seconds=seconds)


def served(queue: Queue, seq: int, *, queued: float, started: float, **columns: Any) -> UUID:
    return queue.insert(
        "completed", **{"seq": seq, "queued_at": at(queued), "started_at": at(started), **columns}
    )


def record(queue: Queue, order_id: UUID, attempt: int, **columns: Any) -> None:
    """Record the end of an attempt as the statements do, unless `columns` say otherwise."""
    queue._insert("attempts", {"order_id": order_id, "attempt": attempt, "outcome": "raised", **columns})


def passed(verdict: Verdict) -> list[tuple[int, int]]:
    return [(inversion.passed.seq, inversion.passer.seq) for inversion in verdict.inversions]


@pytest.fixture
def check(queue: Queue) -> Callable[..., Verdict]:
    return lambda **named: audit.check(queue.connection, **named)


def test_empty_record_is_clean(check: Callable[..., Verdict]) -> None:
    verdict = check()

    assert verdict.is_clean
    assert (verdict.claims, verdict.orders, verdict.unjudged) == (0, 0, 0)


def test_orders_served_in_the_order_of_their_tickets_are_clean(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    for seq in (1, 2, 3):
        served(queue, seq, queued=0, started=10 + seq)

    assert check().is_clean


def test_order_that_waited_while_a_later_one_was_claimed_was_passed(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    first = served(queue, 1, queued=0, started=10)
    second = served(queue, 2, queued=0, started=9)

    (inversion,) = check().inversions

    assert inversion.passed == Turn(first, 1, at(0), at(10))
    assert inversion.passer == Turn(second, 2, at(0), at(9))


@pytest.mark.parametrize(("queued", "found"), [(8.499, 1), (8.5, 1), (8.501, 0)])
def test_order_in_line_for_less_than_half_a_second_is_not_passed(
    queue: Queue, check: Callable[..., Verdict], queued: float, found: int
) -> None:
    served(queue, 1, queued=queued, started=10)
    served(queue, 2, queued=0, started=9)

    assert len(check().inversions) == found


def test_tolerance_can_be_given(queue: Queue, check: Callable[..., Verdict]) -> None:
    served(queue, 1, queued=8.6, started=10)
    served(queue, 2, queued=0, started=9)

    assert passed(check(tolerance_seconds=0.4)) == [(1, 2)]


@pytest.mark.parametrize("started", [9, 10])
def test_orders_claimed_at_the_same_moment_pass_nobody(
    queue: Queue, check: Callable[..., Verdict], started: float
) -> None:
    served(queue, 2, queued=0, started=9)
    served(queue, 1, queued=0, started=9)
    served(queue, 3, queued=0, started=started)

    assert check().is_clean


def test_of_many_that_passed_an_order_the_last_is_named(queue: Queue, check: Callable[..., Verdict]) -> None:
    served(queue, 1, queued=0, started=10)
    for seq, started in [(5, 6), (2, 8), (3, 7), (4, 10.1)]:
        served(queue, seq, queued=5.9, started=started)

    assert (1, 2) in passed(check())


def test_order_still_in_line_was_passed_too(queue: Queue, check: Callable[..., Verdict]) -> None:
    waiting = queue.insert(seq=1, queued_at=at(0))
    queue.insert(seq=2, queued_at=at(0))
    served(queue, 3, queued=0, started=9)
    queue.insert(seq=4, queued_at=at(0))

    verdict = check()

    assert passed(verdict) == [(1, 3), (2, 3)]
    assert verdict.inversions[0].passed == Turn(waiting, 1, at(0), None)


RESCUED, RELEASED, RAISED = Outcome.RESCUED, Outcome.RELEASED, Outcome.RAISED


@pytest.mark.parametrize(
    ("outcomes", "excused"),
    [
        ([RESCUED, RESCUED], 1),
        ([RAISED, RESCUED, RESCUED, RESCUED], 1),
        ([RESCUED, RELEASED, RESCUED, RELEASED], 1),
        ([RESCUED], 0),
        ([RELEASED, RESCUED, RELEASED], 0),
        ([RESCUED, RAISED, RESCUED], 0),
        ([RESCUED, RESCUED, RAISED], 0),
    ],
)
@pytest.mark.parametrize("claimed", [True, False])
def test_order_whose_workers_died_twice_in_a_row_may_be_passed(
    queue: Queue, check: Callable[..., Verdict], outcomes: list[Outcome], excused: int, *, claimed: bool
) -> None:
    attempts = len(outcomes)
    if claimed:
        order_id = served(queue, 1, queued=5, started=10, attempt=attempts + 1, attempt_limit=9)
    else:
        order_id = queue.insert(seq=1, queued_at=at(5), attempt=attempts, attempt_limit=9)
    for attempt, outcome in enumerate(outcomes, 1):
        times = {"started_at": at(attempt / 10), "queued_at": at(attempt / 10), "ended_at": at(attempt / 10)}
        record(queue, order_id, attempt, outcome=outcome, seq=1, **times)
    served(queue, 2, queued=0, started=9)

    verdict = check()

    assert (verdict.passed_alone, passed(verdict)) == (excused, [] if excused else [(1, 2)])
    assert any("to run alone" in line for line in verdict.lines()) == excused


@pytest.mark.parametrize("status", ["retrying", "failed", "cancelled"])
def test_order_that_is_not_in_line_is_not_passed(
    queue: Queue, check: Callable[..., Verdict], status: str
) -> None:
    queue.insert(status, seq=1, queued_at=at(0), attempt=0)
    served(queue, 2, queued=0, started=9)

    assert check().is_clean


def test_each_claim_of_an_order_counts_from_when_it_last_entered_the_line(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    order_id = served(queue, 1, queued=10, started=10.1, attempt=2)
    record(queue, order_id, 1, seq=1, queued_at=at(0), started_at=at(0.1), ended_at=at(10))
    served(queue, 2, queued=0, started=9)

    assert check().is_clean


def test_claim_that_did_not_complete_passes_and_is_passed(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    passer = served(queue, 7, queued=20, started=20, attempt=2)
    record(queue, passer, 1, seq=2, queued_at=at(0), started_at=at(8), ended_at=at(8.1))
    late = served(queue, 1, queued=10, started=10.1, attempt=2)
    record(queue, late, 1, seq=1, queued_at=at(0), started_at=at(9), ended_at=at(10))

    assert passed(check()) == [(1, 2)]


def test_inversions_are_found_as_by_comparing_all_pairs(queue: Queue, check: Callable[..., Verdict]) -> None:
    for seed in range(20):
        queue.connection.execute("DELETE FROM orders")
        dice = random.Random(seed)
        turns = [(seq, dice.randrange(50) / 10, dice.randrange(50, 80) / 10) for seq in range(1, 31)]
        for seq, queued, started in dice.sample(turns, k=30):
            served(queue, seq, queued=queued, started=started)
        last_to_pass = {}
        for seq, queued, started in turns:
            passers = [b for b in turns if b[0] > seq and queued + 0.5 <= b[2] < started]
            if passers:
                last_to_pass[seq] = max(passer[2] for passer in passers)

        found = {inversion.passed.seq: inversion.passer for inversion in check().inversions}

        assert {seq: passer.started_at for seq, passer in found.items()} == {
            seq: at(started) for seq, started in last_to_pass.items()
        }
        assert all(passer.seq > seq for seq, passer in found.items())


def evidence(verdict: Verdict) -> list[tuple[int, Evidence]]:
    return [(found.attempt, found.evidence) for found in verdict.double_starts]


def test_claim_before_the_attempt_before_it_had_ended_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    order_id = served(queue, 1, queued=0, started=9, attempt=2)
    record(queue, order_id, 1, started_at=at(1), ended_at=at(9.001))

    assert check().double_starts == [DoubleStart(order_id, 2, Evidence.OVERLAP)]


def test_overlap_of_two_attempts_that_both_ended_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    order_id = queue.insert("failed", attempt=2)
    record(queue, order_id, 1, started_at=at(1), ended_at=at(4))
    record(queue, order_id, 2, started_at=at(3), ended_at=at(5))

    assert evidence(check()) == [(2, Evidence.OVERLAP)]


def test_claim_of_an_order_whose_last_attempt_has_no_end_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    queue.worker("late")
    queue.worker("other")
    order_id = queue.insert()
    queue.claim("late")
    # What a claim without its fence would do.
    queue.change(order_id, "worker_id = 'other', attempt = 2, started_at = clock_timestamp()")

    assert check().double_starts == [DoubleStart(order_id, 2, Evidence.NO_END)]


@pytest.mark.parametrize("status", ["pending", "retrying", "processing", "completed", "failed", "cancelled"])
def test_gap_in_the_attempts_on_record_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict], status: str
) -> None:
    order_id = queue.insert(status, attempt=4, attempt_limit=5)
    for attempt in (1, 3):
        record(queue, order_id, attempt, started_at=at(attempt), ended_at=at(attempt + 0.5))

    assert evidence(check()) == [(3, Evidence.NO_END)]


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_claim_that_is_held_or_completed_although_it_ended_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict], status: str
) -> None:
    order_id = queue.insert(status)
    record(queue, order_id, 1, worker_id="w")

    assert evidence(check()) == [(1, Evidence.HELD_AFTER_END)]


@pytest.mark.parametrize("other", [{"worker_id": "v"}, {"started_at": at(3)}])
def test_attempt_on_record_with_two_claims_is_a_double_start(
    queue: Queue, check: Callable[..., Verdict], other: dict[str, Any]
) -> None:
    order_id = queue.insert("failed", attempt=1, worker_id="w", started_at=at(2))
    record(queue, order_id, 1, **{"worker_id": "w", "started_at": at(2), **other})

    assert evidence(check()) == [(1, Evidence.TWO_CLAIMS)]


def test_orders_that_share_a_ticket_are_found(queue: Queue, check: Callable[..., Verdict]) -> None:
    first, second = sorted([queue.insert(seq=5), queue.insert(seq=5)])
    queue.insert(seq=6)

    verdict = check()

    assert verdict.shared_tickets == [SharedTicket(5, first, second)]
    assert not verdict.is_clean


def test_orders_that_share_a_ticket_do_not_pass_each_other(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    served(queue, 5, queued=0, started=9)
    served(queue, 5, queued=0, started=10)

    assert check().inversions == []


def test_every_way_an_attempt_ends_leaves_a_clean_record(queue: Queue, check: Callable[..., Verdict]) -> None:
    queue.worker()
    order_id = queue.insert()
    for outcome in (Outcome.RELEASED, Outcome.RESCUED, Outcome.RAISED, Outcome.TIMED_OUT, Outcome.REJECTED):
        (claim,) = queue.claim()
        queue.end(claim.fence, outcome=outcome)
        if queue.row(order_id).status == "retrying":
            queue.change(order_id, "status = 'pending', retry_at = NULL, queued_at = clock_timestamp()")
    redrive.redrive(queue.connection, order_id, attempts=3)
    (again,) = queue.claim()
    queue.exchange(finished=[again.fence])
    asked = queue.insert()
    (claim,) = queue.claim()
    queue.change(asked, "cancel_requested_at = clock_timestamp()")
    queue.end(claim.fence, outcome=Outcome.CANCELLED)

    verdict = check()

    assert verdict.is_clean
    assert (verdict.claims, verdict.orders, verdict.unjudged) == (7, 2, 0)


@pytest.mark.parametrize("attempt", [0, 1, 5])
@pytest.mark.parametrize("status", ["pending", "retrying", "failed", "cancelled"])
def test_imported_order_with_attempts_behind_it_and_no_claim_on_record_is_not_judged(
    queue: Queue, check: Callable[..., Verdict], status: str, attempt: int
) -> None:
    queue.insert(status, attempt=attempt, attempt_limit=9)

    verdict = check()

    assert verdict.is_clean
    assert verdict.unjudged == verdict.claims == (attempt > 0)


def test_attempts_from_before_they_had_tickets_are_counted_and_not_judged(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    order_id = served(queue, 1, queued=10, started=10.1, attempt=2)
    record(queue, order_id, 1, started_at=at(9), ended_at=at(10))
    served(queue, 2, queued=0, started=8)

    verdict = check()

    assert verdict.is_clean
    assert (verdict.claims, verdict.unjudged) == (3, 1)


@pytest.mark.parametrize(
    "missing",
    [
        {"seq": None},
        {"queued_at": None},
        {"queued_at": "-infinity"},
        {"started_at": None},
        {"started_at": "infinity"},
    ],
)
def test_claim_changed_by_hand_to_one_without_ticket_or_times_is_counted_and_not_judged(
    queue: Queue, check: Callable[..., Verdict], missing: dict[str, Any]
) -> None:
    record(queue, uuid4(), 1, **{"seq": 1, "queued_at": at(0), "started_at": at(1), **missing})
    served(queue, 2, queued=0, started=0.9)

    verdict = check()

    assert verdict.is_clean
    assert (verdict.claims, verdict.orders, verdict.unjudged) == (2, 1, 1)


def test_verdict_is_of_the_moment_when_the_check_began(
    queue: Queue,
    connect: Callable[[], Connection],
    in_thread: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("LOCK TABLE attempts")

    running = in_thread(audit.check, connect())
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    wait_until(lambda: queue.value(waiting))
    queue.insert()
    psql.execute("COMMIT")

    assert running.result().orders == 0


def test_report_counts_all_findings_and_names_the_first_twenty_of_each_kind(
    queue: Queue, check: Callable[..., Verdict]
) -> None:
    for seq in range(1, 26):
        served(queue, seq, queued=0, started=100 - seq)
    gap = queue.insert(seq=99, attempt=3)
    record(queue, gap, 1)
    record(queue, gap, 3)

    summary, unjudged, *findings = check().lines()

    assert summary == "27 claims on 26 orders: 24 inversions, 1 double start"
    assert unjudged == "not judged: 2 claims whose ticket or times are not on record"
    assert all(line.startswith("inversion: order ") for line in findings[:20])
    assert findings[20] == "and 4 more"
    assert findings[21].startswith(f"double start: attempt 3 of order {gap} was claimed with no end")

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.errors import IllegalMoveError, OrderLockedError, StatementRefusedError
from schema.order import Fence
from schema.queue import cancel, redrive, rescue, retries, workers
from schema.queue.exchange import recover_claims
from schema.reports import metrics
from schema.states import Outcome, Status
from tests.rows import Queue

PENDING = "orders_pending_is_free_with_an_attempt_left"
PROCESSING = "orders_processing_has_a_worker_and_a_start"
RETRYING = "orders_retrying_is_free_with_a_time_to_return"
FINAL = "orders_final_has_an_end"
USER = "orders_user_id_has_1_to_255_characters"
ITEMS = "orders_item_ids_has_1_to_1000_items"
AMOUNT = "orders_total_amount_is_not_negative"
ATTEMPT = "orders_attempt_is_in_range"
TIMES = "orders_times_are_in_range"

HALF_MADE: list[tuple[str, dict[str, Any], str]] = [
    ("pending", {"worker_id": "w"}, PENDING),
    ("pending", {"started_at": "now"}, PENDING),
    ("pending", {"finished_at": "now"}, PENDING),
    ("pending", {"retry_at": "now"}, PENDING),
    ("pending", {"cancel_requested_at": "now"}, PENDING),
    ("pending", {"attempt": 3, "attempt_limit": 3}, PENDING),
    ("pending", {"attempt": 1_000_000}, PENDING),
    ("pending", {"attempt": 1_000_000, "attempt_limit": 2_000_000}, PENDING),
    ("retrying", {"worker_id": "w"}, RETRYING),
    ("retrying", {"started_at": "now"}, RETRYING),
    ("retrying", {"finished_at": "now"}, RETRYING),
    ("retrying", {"retry_at": None}, RETRYING),
    ("retrying", {"cancel_requested_at": "now"}, RETRYING),
    ("retrying", {"attempt": 5}, RETRYING),
    ("retrying", {"attempt": 1_000_000, "attempt_limit": None}, RETRYING),
    ("processing", {"worker_id": None}, PROCESSING),
    ("processing", {"started_at": None}, PROCESSING),
    ("processing", {"finished_at": "now"}, PROCESSING),
    ("processing", {"retry_at": "now"}, PROCESSING),
    *((state, {"finished_at": None}, FINAL) for state in ("completed", "failed", "cancelled")),
    *((state, {"retry_at": "now"}, FINAL) for state in ("completed", "failed", "cancelled")),
    ("pending", {"user_id": ""}, USER),
    ("pending", {"user_id": "x" * 256}, USER),
    ("pending", {"item_ids": []}, ITEMS),
    ("pending", {"item_ids": ["x"] * 1001}, ITEMS),
    ("pending", {"item_ids": ["x", None]}, ITEMS),
    ("pending", {"item_ids": [["x"], ["y"]]}, ITEMS),
    ("pending", {"total_amount": -1}, AMOUNT),
    ("pending", {"total_amount": Decimal("NaN")}, AMOUNT),
    ("pending", {"attempt": -1}, ATTEMPT),
    ("processing", {"attempt": 1_000_001}, ATTEMPT),
    ("processing", {"attempt_limit": -1}, ATTEMPT),
    ("pending", {"seq": 0}, "orders_seq_is_in_range"),
    ("pending", {"seq": 2**63 - 1}, "orders_seq_is_in_range"),
    ("pending", {"created_at": "infinity"}, TIMES),
    ("pending", {"created_at": "10000-01-01"}, TIMES),
    ("pending", {"created_at": "0044-03-15 BC"}, TIMES),
    ("pending", {"queued_at": "-infinity"}, TIMES),
    ("processing", {"started_at": "infinity"}, TIMES),
    ("processing", {"cancel_requested_at": "infinity"}, TIMES),
    ("retrying", {"retry_at": "infinity"}, TIMES),
    ("completed", {"finished_at": "infinity"}, TIMES),
]


def test_half_made_orders_are_refused_by_name(queue: Queue, refused: Callable[..., str | None]) -> None:
    refusals = [
        (status, columns, refused(lambda: queue.insert(status, **columns)))  # noqa: B023 - called at once
        for status, columns, _ in HALF_MADE
    ]

    assert refusals == HALF_MADE


def test_unknown_state_and_unknown_outcome_are_refused(
    queue: Queue, refused: Callable[..., str | None]
) -> None:
    order_id = queue.insert("cancelled")

    def invent_outcome() -> None:
        queue.connection.execute(
            "INSERT INTO attempts (order_id, attempt, outcome) VALUES (%s, 1, 'lost')", (order_id,)
        )

    assert refused(lambda: queue.change(order_id, "status = 'gone'")) == "orders_status_is_known"
    assert refused(invent_outcome) == "attempts_outcome_is_known"


def test_worker_that_would_break_everybody_s_rescue_is_refused(
    queue: Queue, refused: Callable[..., str | None]
) -> None:
    expected: list[tuple[dict[str, Any], str]] = [
        ({"slots": -1}, "workers_slots_are_not_negative"),
        ({"lease_seconds": -1}, "workers_lease_is_in_range"),
        ({"lease_seconds": "Infinity"}, "workers_lease_is_in_range"),
        ({"lease_seconds": "NaN"}, "workers_lease_is_in_range"),
        ({"heartbeat_at": "infinity"}, "workers_times_are_in_range"),
        ({"dead_at": "294276-12-31"}, "workers_times_are_in_range"),
    ]

    refusals = [
        (columns, refused(lambda: queue.worker(**columns)))  # noqa: B023 - called at once
        for columns, _ in expected
    ]

    assert refusals == expected


def test_switch_has_only_one_row(queue: Queue, refused: Callable[..., str | None]) -> None:
    def add(value: str) -> Any:
        return queue.connection.execute("INSERT INTO queue (only_row) VALUES (%s)", (value,))

    assert refused(lambda: add("false")) == "queue_has_only_one_row"
    with pytest.raises(StatementRefusedError, match="UniqueViolation"):
        add("true")


def test_every_state_can_be_inserted_by_hand(queue: Queue) -> None:
    rows = [queue.row(queue.insert(status)) for status in Status]

    assert [row.status for row in rows] == list(Status)
    assert [row.status for row in rows if row.in_line] == [Status.PENDING]


def test_four_columns_make_a_whole_order(queue: Queue) -> None:
    before = queue.now()

    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
        " VALUES ('9c5b94b1-35ad-49bb-b118-8e8fc24abf80', 'ada', '{tea,cup}', 250.75)"
    )

    row = queue.row(UUID("9c5b94b1-35ad-49bb-b118-8e8fc24abf80"))
    assert (row.status, row.attempt, row.attempt_limit, row.in_line) == ("pending", 0, None, True)
    assert before <= row.created_at <= queue.now()
    assert before <= row.queued_at <= queue.now()
    assert row.total_amount == Decimal("250.75")
    queue.worker()
    assert [claim.item_ids for claim in queue.claim()] == [["tea", "cup"]]


ATTEMPTS = [0, 1, 3, 5, 999_999, 1_000_000]
LIMITS = [None, 0, 1, 3, 5, 1_000_000, 2_147_483_647]
TIMES_OF_EACH_KIND = ["now", "1900-01-01 00:00Z", "2999-12-31 23:59Z"]


@pytest.fixture
def extremes(queue: Queue, refused: Callable[..., str | None]) -> Callable[..., list[Fence]]:
    """Insert every legal row of a state that the columns' extremes can make; return their fences."""

    def insert_all(status: str) -> list[Fence]:
        legal: list[Fence] = []
        for attempt in ATTEMPTS:
            for limit in LIMITS:
                for moment in TIMES_OF_EACH_KIND:
                    for asked in (None, moment):
                        columns = {
                            "created_at": moment,
                            "queued_at": moment,
                            "attempt": attempt,
                            "attempt_limit": limit,
                            "cancel_requested_at": asked,
                            "item_ids": ['"', "NULL", "{,}", "\N{SNOWMAN}"],
                            "seq": 9 * 10**18 if limit == 0 else len(legal) + 1,
                        }
                        if status in ("processing", "completed"):
                            columns["started_at"] = moment
                        if status == "retrying":
                            columns["retry_at"] = moment

                        def insert(columns: dict[str, Any] = columns) -> None:
                            legal.append(Fence(queue.insert(status, **columns), columns["attempt"]))

                        refused(insert)
        return legal

    return insert_all


@pytest.mark.parametrize("outcome", Outcome)
def test_no_legal_processing_row_poisons_the_end_of_attempts(
    queue: Queue, extremes: Callable[..., list[Fence]], outcome: Outcome
) -> None:
    queue.worker()
    fences = extremes("processing")

    unwritten = queue.end(*fences, outcome=outcome, error="x")

    assert len(fences) > 200
    assert not unwritten.busy
    assert not unwritten.lost
    assert queue.value("SELECT count(*) FROM orders WHERE status = 'processing'") == 0
    assert queue.value("SELECT count(*) FROM attempts") == len(fences)


def test_no_legal_pending_row_poisons_the_claim(queue: Queue, extremes: Callable[..., list[Fence]]) -> None:
    queue.worker()
    fences = extremes("pending")

    claimed = queue.claim(free=1000)
    done = queue.exchange(finished=[claim.fence for claim in claimed])

    assert len(fences) > 20
    assert {claim.order_id for claim in claimed} == {fence.order_id for fence in fences}
    assert not done.busy
    assert not done.lost


def test_no_legal_processing_row_poisons_the_recovery_of_claims_the_beat_or_the_completion(
    queue: Queue, extremes: Callable[..., list[Fence]]
) -> None:
    queue.worker()
    fences = extremes("processing")
    since = queue.value("SELECT min(started_at) FROM orders")

    found = recover_claims(queue.connection, "w", held=[], since=since)
    beat = workers.beat(
        queue.connection, "w", held=[fence.order_id for fence in fences], oldest_claim_at=since
    )
    exchanged = queue.exchange(finished=fences)

    assert {claim.fence for claim in found} == set(fences)
    assert beat.alive
    assert not exchanged.lost


def test_no_legal_row_poisons_the_rescue(queue: Queue, extremes: Callable[..., list[Fence]]) -> None:
    queue.worker(dead_at="2999-12-31", lease_seconds=86_400, oldest_claim_at=None)
    swept = extremes("processing")
    rescue.declare_dead(queue.connection, watched_seconds=float("inf"))

    assert len(rescue.sweep(queue.connection)) == len(swept)
    rescue.mark_swept(queue.connection)

    queue.connection.execute("TRUNCATE orders, workers, attempts")
    patrolled = extremes("processing")
    assert len(rescue.patrol(queue.connection, after=None).rescued) == len(patrolled)


def test_no_legal_retrying_row_poisons_the_return(queue: Queue, extremes: Callable[..., list[Fence]]) -> None:
    fences = extremes("retrying")
    future = queue.value("SELECT count(*) FROM orders WHERE retry_at > clock_timestamp()")

    assert retries.return_due(queue.connection) == len(fences) - future > 0


@pytest.mark.parametrize("status", ["pending", "retrying", "processing"])
def test_no_legal_row_poisons_the_cancel(
    queue: Queue, extremes: Callable[..., list[Fence]], status: str
) -> None:
    for fence in extremes(status):
        assert cancel.cancel(queue.connection, fence.order_id) in (Status.CANCELLED, Status.PROCESSING)


def test_no_legal_failed_row_poisons_the_redrive(queue: Queue, extremes: Callable[..., list[Fence]]) -> None:
    for fence in extremes("failed"):
        if fence.attempt < 1_000_000:
            redrive.redrive(queue.connection, fence.order_id, attempts=5)
            assert queue.status(fence.order_id) is Status.PENDING
        else:
            with pytest.raises((IllegalMoveError, OrderLockedError)):
                redrive.redrive(queue.connection, fence.order_id, attempts=5)


def test_no_legal_row_poisons_the_metrics(queue: Queue, extremes: Callable[..., list[Fence]]) -> None:
    fences = extremes("completed")
    queue.worker(lease_seconds=86_400, slots=2_147_483_647)
    queue.worker("v", slots=0, heartbeat_at="2999-12-31")

    assert metrics.read(queue.connection, simulated_seconds=2).counts[Status.COMPLETED] == len(fences)

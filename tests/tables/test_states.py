import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from schema.errors import IllegalMoveError, StatementRefusedError
from schema.order import Fence
from schema.queue import cancel, completion, redrive, rescue, retries, tally
from schema.queue.redrive import Failed
from schema.states import FINAL, TRANSITIONS, Outcome, Status
from tests.rows import SHAPES, Queue


def ending(outcome: Outcome) -> Callable[[Any, UUID], Any]:
    error = None if outcome is Outcome.RELEASED else "it broke"
    return lambda queue, order_id: queue.end(Fence(order_id, 1), outcome=outcome, error=error)


def exchanging(*, idle: bool | None, free: int = 0) -> Callable[[Any, UUID], Any]:
    """Claim up to `free` orders, or complete the order if there are none."""
    return lambda queue, order_id: queue.exchange(
        finished=[] if free else [Fence(order_id, 1)], free=free, idle=idle
    )


def sweep(queue: Queue, _order_id: UUID) -> None:
    queue.change_worker("w", "dead_at = clock_timestamp()")
    rescue.sweep(queue.connection)


def patrol(queue: Queue, _order_id: UUID) -> None:
    queue.connection.execute("DELETE FROM workers")
    rescue.patrol(queue.connection, after=None)


@dataclass(frozen=True)
class Statement:
    """A statement, the condition of the order that it meets, and the moves that it then makes."""

    call: Callable[[Any, UUID], Any]
    moves: dict[Status, str]
    columns: dict[str, Any] = field(default_factory=dict)


SPENT = {"attempt_limit": 1}
ASKED = {"cancel_requested_at": "now"}
LATER = datetime(2900, 1, 1, tzinfo=UTC)
P = Status.PROCESSING

STATEMENTS = {
    "exchange completes": Statement(exchanging(idle=None), {P: "complete"}),
    "exchange claims": Statement(exchanging(idle=None, free=10), {Status.PENDING: "claim"}),
    "exchange of an idle worker completes": Statement(exchanging(idle=True), {P: "complete"}),
    "exchange of an idle worker claims": Statement(exchanging(idle=True, free=10), {Status.PENDING: "claim"}),
    "completion completes": Statement(
        lambda queue, order_id: completion.complete(queue.connection, "w", fence=Fence(order_id, 1)),
        {P: "complete"},
    ),
    "raised": Statement(ending(Outcome.RAISED), {P: "retry"}),
    "timed out": Statement(ending(Outcome.TIMED_OUT), {P: "retry"}),
    "cancelled unasked": Statement(ending(Outcome.CANCELLED), {P: "retry"}),
    "raised, attempts spent": Statement(ending(Outcome.RAISED), {P: "exhaust"}, SPENT),
    "timed out, attempts spent": Statement(ending(Outcome.TIMED_OUT), {P: "exhaust"}, SPENT),
    "raised, cancel asked": Statement(ending(Outcome.RAISED), {P: "cancel"}, ASKED),
    "timed out, cancel asked": Statement(ending(Outcome.TIMED_OUT), {P: "cancel"}, ASKED),
    "cancelled, cancel asked": Statement(ending(Outcome.CANCELLED), {P: "cancel"}, ASKED),
    "released, cancel asked": Statement(ending(Outcome.RELEASED), {P: "cancel"}, ASKED),
    "rejected": Statement(ending(Outcome.REJECTED), {P: "reject"}),
    "rejected, cancel asked": Statement(ending(Outcome.REJECTED), {P: "reject"}, ASKED),
    "released": Statement(ending(Outcome.RELEASED), {P: "release"}),
    "released, attempts spent": Statement(ending(Outcome.RELEASED), {P: "release"}, SPENT),
    "sweep": Statement(sweep, {P: "rescue"}),
    "sweep, attempts spent": Statement(sweep, {P: "exhaust"}, SPENT),
    "sweep, cancel asked": Statement(sweep, {P: "cancel"}, ASKED),
    "patrol": Statement(patrol, {P: "rescue"}),
    "patrol, attempts spent": Statement(patrol, {P: "exhaust"}, SPENT),
    "patrol, cancel asked": Statement(patrol, {P: "cancel"}, ASKED),
    "return due": Statement(
        lambda queue, _: retries.return_due(queue.connection), {Status.RETRYING: "fall due"}
    ),
    "cancel": Statement(
        lambda queue, order_id: cancel.cancel(queue.connection, order_id),
        {Status.PENDING: "cancel", Status.RETRYING: "cancel"},
    ),
    "redrive": Statement(
        lambda queue, order_id: redrive.redrive(queue.connection, order_id, attempts=5),
        {Status.FAILED: "redrive"},
    ),
    "redrive of many": Statement(
        lambda queue, order_id: list(
            redrive.redrive_failed(queue.connection, Failed([order_id], at=LATER), attempts=5)
        ),
        {Status.FAILED: "redrive"},
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_makes_its_moves_and_leaves_every_other_state_alone(queue: Queue, name: str) -> None:
    statement = STATEMENTS[name]

    for status in Status:
        queue.connection.execute("TRUNCATE orders, workers, attempts")
        queue.worker()
        columns = statement.columns if status is P else {}
        order_id = queue.insert(status, **columns)
        before = queue.row(order_id)
        with suppress(IllegalMoveError):
            statement.call(queue, order_id)
        after = queue.row(order_id)

        if status in statement.moves:
            assert after.status == TRANSITIONS[status][statement.moves[status]]
        else:
            assert after.status == before.status
            if name != "cancel":
                assert after == before


def made() -> Iterator[tuple[Status, str]]:
    for statement in STATEMENTS.values():
        yield from statement.moves.items()


def test_every_transition_is_made_by_some_statement() -> None:
    assert set(made()) == {(status, move) for status, moves in TRANSITIONS.items() for move in moves}


def test_every_state_has_its_transitions_and_only_failed_leaves_the_final_ones() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert {status for status in FINAL if TRANSITIONS[status]} == {Status.FAILED}
    assert all(TRANSITIONS[status] for status in set(Status) - FINAL)


def test_exactly_the_final_states_may_have_an_end(queue: Queue, refused: Callable[..., str | None]) -> None:
    ended = {
        status
        for status in Status
        if refused(lambda: queue.insert(status, finished_at="now")) is None  # noqa: B023 - called at once
    }

    assert ended == FINAL


SHAPED = sorted({column for shape in SHAPES.values() for column in shape})

MOVE_BY_HAND = """
UPDATE orders
SET status = %(status)s,
    attempt = GREATEST(orders.attempt, %(attempt)s),
    ({columns}) = ROW ({values})
WHERE order_id = ANY (%(order_ids)s)
"""


def move(queue: Queue, *order_ids: UUID, to: Status) -> None:
    """Write by hand what a row of that state holds."""
    shape = {"attempt": 0, **dict.fromkeys(SHAPED), **SHAPES[to], "attempt_limit": 9}
    columns = [name for name in SHAPED if name != "attempt"]
    statement = MOVE_BY_HAND.format(
        columns=", ".join(columns), values=", ".join(f"%({name})s" for name in columns)
    )
    queue.connection.execute(statement, {**shape, "status": to, "order_ids": list(order_ids)})


@pytest.mark.parametrize("after", Status)
@pytest.mark.parametrize("before", Status)
def test_hand_moves_an_order_anywhere_but_out_of_a_final_state_other_than_by_a_redrive(
    queue: Queue, refused: Callable[..., str | None], before: Status, after: Status
) -> None:
    order_id = queue.insert(before)
    stood = queue.row(order_id)
    allowed = before not in FINAL or after in (before, *TRANSITIONS[before].values())

    constraint = refused(lambda: move(queue, order_id, to=after))

    assert constraint == (None if allowed else "orders_final_states_are_final")
    assert queue.status(order_id) == (after if allowed else before)
    assert allowed or queue.row(order_id) == stood
    assert {status: n for status, n in tally.read(queue.connection).counts.items() if n} == {
        queue.status(order_id): 1
    }


def test_refused_edit_says_what_to_do_instead(queue: Queue) -> None:
    order_id = queue.insert("completed")

    with pytest.raises(StatementRefusedError, match="completed and cancelled orders stay") as refusal:
        queue.change(order_id, "status = 'cancelled'")

    assert isinstance(refusal.value.__cause__, psycopg.Error)
    assert "AND finished_at IS NULL" in str(refusal.value.__cause__.diag.message_hint)
    assert (refusal.value.table, refusal.value.sqlstate) == ("orders", "23514")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orders SET status = 'cancelled', finished_at = clock_timestamp(), retry_at = NULL",
        "UPDATE orders SET status = 'failed', finished_at = clock_timestamp(), retry_at = NULL",
    ],
    ids=["cancelled", "failed"],
)
def test_edit_of_many_is_refused_whole_when_some_of_them_are_final(queue: Queue, statement: str) -> None:
    for status in Status:
        queue.insert(status)
    stood = queue.snapshot()

    with pytest.raises(StatementRefusedError, match="stay what they are"):
        queue.connection.execute(statement)
    assert queue.snapshot() == stood

    queue.connection.execute(f"{statement} WHERE finished_at IS NULL")
    assert queue.value("SELECT count(*) FROM orders WHERE finished_at IS NULL") == 0


@pytest.mark.parametrize(
    "statement",
    [
        """
        INSERT INTO orders (order_id, user_id, item_ids, total_amount)
        SELECT order_id, 'eve', '{tea}', 1 FROM orders
        ON CONFLICT (order_id) DO UPDATE SET status = 'cancelled'
        """,
        """
        MERGE INTO orders USING (SELECT order_id FROM orders) AS same ON same.order_id = orders.order_id
        WHEN MATCHED THEN UPDATE SET status = 'cancelled'
        """,
        "WITH moved AS (UPDATE orders SET status = 'cancelled' RETURNING 1) SELECT count(*) FROM moved",
        "UPDATE orders SET status = 'cancelled', order_id = gen_random_uuid()",
    ],
    ids=["upsert", "merge", "part of a statement", "with the key"],
)
def test_final_state_is_kept_whatever_the_update_is_part_of(queue: Queue, statement: str) -> None:
    queue.insert("completed")

    with pytest.raises(StatementRefusedError, match="stay what they are"):
        queue.connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orders SET user_id = 'eve', last_error = 'seen', finished_at = clock_timestamp()",
        "UPDATE orders SET status = 'cancelled' WHERE false",
        "UPDATE orders SET status = status",
        "DELETE FROM orders",
        "TRUNCATE orders",
    ],
)
def test_final_orders_may_be_edited_within_their_state_and_deleted(queue: Queue, statement: str) -> None:
    for status in FINAL:
        queue.insert(status)

    queue.connection.execute(statement)

    assert queue.value("SELECT count(*) FROM orders WHERE finished_at IS NULL") == 0


def test_failed_order_that_a_person_dealt_with_is_completed_as_the_page_says(queue: Queue) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
    (told,) = re.findall(r"completed \(or cancelled\) by way of the line.*?(?=\n- )", page, re.DOTALL)
    first, second = re.findall(r"`SET (.*?)`", told, re.DOTALL)
    order_id = queue.insert("failed", started_at="now", worker_id="w", cancel_requested_at="now")

    with queue.connection.transaction():
        queue.change(order_id, first)
        queue.change(order_id, second)

    assert queue.status(order_id) == Status.COMPLETED

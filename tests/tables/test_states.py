from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from schema.errors import IllegalMoveError
from schema.order import Fence
from schema.queue import cancel, completion, redrive, rescue, retries
from schema.queue.redrive import Failed
from schema.states import FINAL, TRANSITIONS, Outcome, Status
from tests.rows import Queue


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

import math
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from orders_worker.attempt.attempt import Attempt, AttemptSettings, Done
from orders_worker.attempt.backoff import backoff
from orders_worker.attempt.event_loop import EventLoop
from orders_worker.attempt.outcome import error_text
from orders_worker.attempt.pool import HandlerPool
from orders_worker.attempt.transaction import TransactionError
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.finished import Finished
from orders_worker.dispatch.shutdown import HAND_BACK_SECONDS, Shutdown
from schema.errors import DatabaseUnavailableError
from schema.order import Claim
from schema.queue.workers import Registration
from schema.runtime.connection import Connection
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.signals import StopSignals
from schema.runtime.waker import Waker
from schema.states import Outcome

BEGAN = datetime(2031, 5, 1, tzinfo=UTC)


def make_claim(number: int = 1, *, attempt: int = 1, limit: int = 5, seconds: float = 0.0) -> Claim:
    return Claim(
        order_id=UUID(int=number),
        attempt=attempt,
        attempt_limit=limit,
        seq=number,
        user_id="ada",
        item_ids=["tea"],
        total_amount=Decimal("250.75"),
        created_at=BEGAN,
        started_at=BEGAN + timedelta(seconds=seconds),
    )


def never(*_: object) -> Any:
    raise AssertionError("not in this test")


def make_attempt(claim: Claim, handler: Any = never, *, base_seconds: float = 1.0) -> Attempt:
    settings = AttemptSettings(
        handler=handler,
        pool=HandlerPool("host=/nowhere", size=1, lease_seconds=1, timeout_seconds=0.01),
        max_attempts=5,
        backoff_seconds=base_seconds,
        timeout_seconds=None,
    )
    return Attempt(claim, worker_id="w", settings=settings)


# Backoff.


@pytest.mark.parametrize(("failures", "doubled"), [(1, 10), (2, 20), (5, 160), (7, 600), (10**9, 600)])
def test_backoff_doubles_up_to_ten_minutes_and_varies_by_a_quarter(failures: int, doubled: float) -> None:
    waits = [backoff(failures, base_seconds=10) for _ in range(500)]

    assert doubled * 0.75 <= min(waits) < doubled * 0.8
    assert doubled * 1.2 < max(waits) <= doubled * 1.25


@pytest.mark.parametrize(
    ("attempt", "limit", "spent"),
    [(1, 5, 1), (4, 5, 4), (4, 7, 2), (9, 10, 4), (2, 100, 1)],
    ids=["first", "fourth", "two released", "redriven", "generous"],
)
def test_backoff_counts_the_attempts_spent(attempt: int, limit: int, spent: int) -> None:
    ending = make_attempt(make_claim(attempt=attempt, limit=limit)).ending(Outcome.RAISED, "no")

    assert 0.75 <= ending.retry_seconds / 2 ** (spent - 1) <= 1.25


# What an error looks like in the database.


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no stock"), "ValueError: no stock"),
        (ValueError(), "ValueError"),
        (ValueError("a\0b"), "ValueError: a\N{REPLACEMENT CHARACTER}b"),
        (ValueError("\ud800"), "ValueError: ?"),
        (ValueError("é" * 3000), "ValueError: " + "é" * 1988),
        (MuteError("said nothing"), "MuteError"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_error_is_told_with_its_class_and_can_be_stored(error: BaseException, text: str) -> None:
    assert error_text(error) == text


def test_reason_of_a_rejection_is_told_without_its_class() -> None:
    assert error_text(ValueError("no stock"), named=False) == "no stock"


# An attempt that is given up.


def test_attempt_given_up_before_its_thread_took_it_never_calls_the_handler() -> None:
    attempt = make_attempt(make_claim())

    assert attempt.abandon()
    assert attempt.run(EventLoop()) is None
    assert not attempt.abandon()


def test_attempt_that_is_over_can_not_be_given_up_or_replaced() -> None:
    attempt = make_attempt(make_claim(), lambda *_: None)

    assert attempt.run(EventLoop()) is Done.TO_COMPLETE
    assert not attempt.abandon()
    assert not attempt.replace()


def test_result_of_an_attempt_given_up_meanwhile_is_ignored_and_its_transaction_refused() -> None:
    errors: list[BaseException] = []

    def handle(*_: object) -> None:
        attempt.abandon()
        try:
            attempt.context.transaction()
        except TransactionError as error:
            errors.append(error)

    attempt = make_attempt(make_claim(), handle)

    assert attempt.run(EventLoop()) is None
    assert attempt.context.cancel_requested
    assert len(errors) == 1


# The hand.


def test_hand_reports_the_oldest_claim_and_never_one_younger_than_the_last_exchange() -> None:
    claims = Claims(Registration("w1", BEGAN))
    old, young = make_claim(1, seconds=1), make_claim(2, seconds=5)
    assert claims.holding().oldest_claim_at == BEGAN

    claims.take([make_attempt(old), make_attempt(young)], at=BEGAN + timedelta(seconds=4))
    assert claims.holding().oldest_claim_at == old.started_at
    assert len(claims) == 2
    claims.drop([old.fence, make_claim(9).fence])

    # The exchange under way may claim from four seconds on, earlier than the claim in hand.
    assert claims.holding().oldest_claim_at == BEGAN + timedelta(seconds=4)
    assert claims.holding().order_ids == [young.order_id]


def test_hand_passes_a_cancel_on_to_the_attempts_it_names() -> None:
    claims = Claims(Registration("w1", BEGAN))
    attempts = [make_attempt(make_claim(number)) for number in (1, 2)]
    claims.take(attempts, at=BEGAN)

    claims.request_cancel(frozenset({UUID(int=2), UUID(int=3)}))

    assert [attempt.context.cancel_requested for attempt in attempts] == [False, True]


def test_hand_is_empty_under_a_new_id() -> None:
    claims = Claims(Registration("w1", BEGAN))
    attempt = make_attempt(make_claim())
    claims.take([attempt], at=BEGAN)

    assert claims.renew(Registration("w2", BEGAN + timedelta(seconds=9))) == [attempt]
    assert len(claims) == 0
    assert claims.holding().worker_id == "w2"
    assert claims.holding().oldest_claim_at == BEGAN + timedelta(seconds=9)


# The end.


# What has ended.


def test_end_that_stays_unwritten_for_a_minute_is_an_error_once(
    clock: "Clock", caplog: pytest.LogCaptureFixture
) -> None:
    claims = Claims(Registration("w1", BEGAN))
    attempts = [make_attempt(make_claim(number)) for number in (1, 2)]
    claims.take(attempts, at=BEGAN)
    finished = Finished(claims, clock=clock)
    finished.complete(attempts[0].fence)
    clock.now += 30
    finished.end(attempts[1].ending(Outcome.RELEASED))

    def reported() -> list[Any]:
        finished.report_unwritten()
        return [vars(record)["fields"]["order_id"] for record in caplog.records]

    clock.now += 29
    assert reported() == []
    clock.now += 1
    assert reported() == [UUID(int=1)]
    clock.now += 30
    assert reported() == [UUID(int=1), UUID(int=2)]
    assert reported() == [UUID(int=1), UUID(int=2)]
    assert {(record.levelname, record.msg) for record in caplog.records} == {("ERROR", "end_unwritten")}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_stop_hands_back_when_the_time_is_over_and_leaves_a_little_later(clock: Clock) -> None:
    stop = Shutdown(StopSignals(clock), shutdown_seconds=30, clock=clock)
    stop.advance()
    assert not stop.requested
    assert stop.next_at == math.inf

    stop.begin()
    stop.advance()
    assert (stop.requested, stop.handing_back, stop.over) == (True, False, False)
    assert stop.next_at == clock.now + 30

    clock.now += 30
    stop.advance()
    assert stop.handing_back
    assert stop.next_at == clock.now + HAND_BACK_SECONDS
    assert not stop.over
    clock.now += HAND_BACK_SECONDS
    stop.advance()
    assert stop.over


@pytest.mark.usefixtures("keep_signal_handlers")
def test_impatience_hands_back_at_once(clock: Clock) -> None:
    signals = StopSignals(clock)
    stop = Shutdown(signals, shutdown_seconds=30, clock=clock)
    for pause in (0.0, 1.5):
        clock.now += pause
        with pytest.raises(SystemExit):
            signals.receive(signal.SIGTERM, None)

    assert stop.requested
    stop.advance()
    assert stop.handing_back


# The connection of the dispatcher, and what wakes a thread.


def test_pauses_between_tries_to_connect_grow_to_two_seconds(clock: Clock) -> None:
    def connect() -> Connection:
        raise DatabaseUnavailableError

    database = Reconnecting(connect, name="test", ceiling_seconds=2, clock=clock)
    pauses = []
    for _ in range(12):
        with pytest.raises(DatabaseUnavailableError):
            database.connection()
        pauses.append(database.failed(DatabaseUnavailableError()))
        assert database.retry_at == clock.now + pauses[-1]

    assert database.broken
    assert 0.05 <= pauses[0] <= 0.1
    assert all(1 <= pause <= 2 for pause in pauses[5:])
    database.succeeded()
    assert not database.broken


@pytest.fixture
def waker() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def test_waker_that_was_woken_often_ends_the_wait_and_does_not_block(waker: Waker) -> None:
    for _ in range(100_000):
        waker.wake()

    waker.wait(60)

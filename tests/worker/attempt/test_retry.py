"""Handlers that say when their order is attempted again."""

import math

import pytest

from orders_worker.handler import Retry
from tests.worker.conftest import Queue, StartWorker


def test_retry_comes_when_the_handler_says(start_worker: StartWorker, queue: Queue) -> None:
    worker = start_worker(
        """
from orders_worker.handler import Retry

def handle(order, context):
    if order.seq == 1 and order.attempt == 1:
        raise Retry("the bank is closed", after=3600)
    if order.attempt == 1:
        raise Retry(after=0)
""",
        ORDERS_BACKOFF_SECONDS=600,
    )
    first, second = queue.submit(2)

    assert queue.until(second, "completed").last_error == "Retry"
    waiting = queue.until(first, "retrying")
    assert waiting.last_error == "the bank is closed"
    ahead = """
        SELECT EXTRACT(epoch FROM retry_at - ended_at)
        FROM orders JOIN attempts USING (order_id)
        WHERE order_id = %s
    """
    assert math.isclose(queue.one(ahead, first), 3600, abs_tol=60)
    # It is no error of the handler's that a person must look at.
    assert "handler_raised" not in worker.log


def test_retry_spends_its_attempt(start_worker: StartWorker, queue: Queue) -> None:
    start_worker(
        """
from orders_worker.handler import Retry

def handle(order, context): raise Retry("not yet", after=0)
""",
        ORDERS_MAX_ATTEMPTS=2,
    )

    order = queue.until(queue.submit_one(), "failed")

    assert (order.attempt, order.last_error) == (2, "not yet")


@pytest.mark.parametrize("after", [-1, math.inf, math.nan, 31 * 86_400 + 1])
def test_time_that_can_not_be_waited_for_is_refused(after: float) -> None:
    with pytest.raises(ValueError, match="expected seconds from 0 to 2,678,400"):
        Retry(after=after)

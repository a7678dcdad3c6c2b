"""Handlers that are coroutine functions: each slot has an event loop of its own."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker

GOOD = {
    "a coroutine function": "async def handle(order, context): await work(order, context)",
    "a partial of one": """
import functools
async def begin(extra, order, context): await work(order, context)
handle = functools.partial(begin, 1)
""",
    "an object with an asynchronous call": """
class Handler:
    async def __call__(self, order, context): await work(order, context)
handle = Handler()
""",
    "a function that returns a coroutine": "def handle(order, context): return work(order, context)",
}

WORK = """
import asyncio

async def work(order, context):
    context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
    await asyncio.sleep(0.01)
    note(order, "done", loop=id(asyncio.get_running_loop()), thread=threading.get_ident())
"""


@pytest.mark.parametrize("handler", GOOD.values(), ids=GOOD)
def test_asynchronous_handler_is_awaited_in_a_loop_of_its_slot(
    handler: str, start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    worker = start_worker(WORK + handler, ORDERS_CONCURRENCY=2)
    ids = queue.submit(10)
    queue.until_all("completed")

    done = notes("done")
    assert {line["order_id"] for line in done} == set(map(str, ids))
    assert {row[0] for row in queue.all("SELECT order_id FROM ledger")} == set(ids)
    loops = {(line["loop"], line["thread"]) for line in done}
    assert len(loops) == len({thread for _, thread in loops}) <= 2
    assert worker.stop() == 0
    assert "Warning" not in worker.log


def test_asynchronous_handlers_exceptions_mean_what_they_always_mean(
    start_worker: StartWorker, queue: Queue
) -> None:
    start_worker("""
import asyncio

async def handle(order, context):
    await asyncio.sleep(0)
    if order.seq == 1:
        raise Reject("no stock")
    if order.attempt == 1:
        raise asyncio.CancelledError
""")
    first, second = queue.submit(2)

    assert queue.until(first, "failed").last_error == "no stock"
    assert queue.until(second, "completed").last_error == "CancelledError"


def test_asynchronous_handler_past_its_time_is_cancelled_where_it_waits(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(
        """
import asyncio

async def inner():
    await asyncio.sleep(600)

async def handle(order, context):
    try:
        await inner()
    finally:
        note(order, "cleaned")
""",
        ORDERS_CONCURRENCY=2,
        ORDERS_TIMEOUT_SECONDS=0.2,
        ORDERS_MAX_ATTEMPTS=2,
    )
    order = queue.until(queue.submit_one(), "failed")

    assert "ORDERS_TIMEOUT_SECONDS" in order.last_error
    wait_until(lambda: len(notes("cleaned")) == 2)
    # Nothing hangs: the worker lives on with its one slot.
    second = queue.submit_one()
    queue.until(second, "failed")
    assert worker.running
    event, *frames = worker.log.partition("attempt_abandoned")[2].splitlines()
    assert event.endswith("outcome=timed_out")
    assert [frame.rpartition(" ")[2] for frame in frames[:3]] == ["handle", "inner", "sleep"]
    assert "handler_raised" not in worker.log

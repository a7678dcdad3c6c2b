"""Handlers that fork: their children are processes of their own, not copies of a worker."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker

MULTIPROCESSING = """
import multiprocessing

def handle(order, context):
    forking = multiprocessing.get_context("fork")
    process = forking.Process(target=time.sleep, args=[600])
    process.start()
    process.terminate()
    process.join(30)
    note(order, "terminated", status=process.exitcode)
    with forking.Pool(2) as pool:
        squares = pool.map(abs, [-1, -2])
    note(order, "mapped", squares=squares)
"""

FORKS = """
def handle(order, context):
    if order.attempt == 1:
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        note(order, "forked", child=pid)
        wait_for("never")
"""

INTERRUPTED = """
import signal, sys

def handle(order, context):
    pid = os.fork()
    if pid == 0:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(600)
        except KeyboardInterrupt:
            os._exit(7)
    note(order, "ended", status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture
def children(notes: Callable[..., Any]) -> Iterator[Callable[[], list[int]]]:
    """Return the handlers' children, which end with the test."""

    def read() -> list[int]:
        return [line["child"] for line in notes("forked")]

    yield read
    for child in read():
        os.kill(child, signal.SIGKILL)


def test_children_end_when_they_are_terminated(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    worker = start_worker(MULTIPROCESSING)

    queue.until(queue.submit_one(), "completed", seconds=60)

    assert [line["status"] for line in notes("terminated")] == [-signal.SIGTERM]
    assert [line["squares"] for line in notes("mapped")] == [[1, 2]]
    assert worker.stop() == 0


def test_interrupt_is_an_exception_in_a_child(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    start_worker(INTERRUPTED)

    queue.until(queue.submit_one(), "completed")

    assert [line["status"] for line in notes("ended")] == [7]


@pytest.mark.slow
@pytest.mark.direct
def test_child_that_outlives_its_worker_keeps_neither_its_session_nor_its_port(
    start_worker: StartWorker, queue: Queue, children: Callable[[], list[int]], wait_until: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings: dict[str, Any] = {"ORDERS_HEALTH_PORT": port, "ORDERS_LEASE_SECONDS": 10}
    worker = start_worker(FORKS, **settings)
    order_id = queue.submit_one()
    wait_until(children)
    watcher = start_worker(FORKS, ORDERS_LEASE_SECONDS=10)
    watched = "SELECT FROM workers WHERE pid = %s AND started_at < clock_timestamp() - INTERVAL '11 s'"
    wait_until(lambda: queue.all(watched, watcher.pid))

    worker.send(signal.SIGKILL)
    worker.wait()
    assert start_worker(FORKS, **settings).running

    assert queue.until(order_id, "completed").attempt == 2
    # By its session, which was watched for two seconds; a lease that is over needs no watch.
    by_session = "SELECT dead_at - session_lost_at > INTERVAL '1 s' FROM workers WHERE pid = %s"
    assert queue.one(by_session, worker.pid)

"""An order that may kill its worker process, and the orders that would be in there with it."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.wire import Wire
from tests.worker.conftest import Queue, StartWorker
from tests.worker.dispatch.test_lost_answer import Loss

ONE_KILLS = """
def handle(order, context):
    note(order)
    time.sleep(0.2)
    if str(order.order_id) == pathlib.Path("killer").read_text():
        os.kill(os.getpid(), 9)
    time.sleep(0.2)
"""

STEPS = """
def handle(order, context):
    note(order)
    wait_for(str(order.order_id))
    note(order, "ended")
"""


def make_dangerous(queue: Queue, order_id: UUID) -> None:
    """Have the order wait in line as one whose workers died twice."""
    queue.connection.execute(
        "UPDATE orders SET attempt = 2, attempt_limit = 5, rescues = 2 WHERE order_id = %s", (order_id,)
    )


@pytest.mark.slow
def test_order_that_kills_its_worker_each_time_takes_no_other_into_failed(
    start_worker: StartWorker, queue: Queue, tmp_path: Path
) -> None:
    ids = queue.submit(12)
    killer = ids.pop(3)
    (tmp_path / "killer").write_text(str(killer))
    settings: dict[str, Any] = {"ORDERS_LEASE_SECONDS": 1, "ORDERS_CONCURRENCY": 4}

    # What a supervisor does: start it again when it died.
    for _ in range(5):
        assert start_worker(ONE_KILLS, ready=False, **settings).wait() == -signal.SIGKILL
    last = start_worker(ONE_KILLS, ready=False, **settings)

    assert queue.until(killer, "failed").attempt == 5
    assert {queue.until(order_id, "completed").status for order_id in ids} == {"completed"}
    assert [str(killer) in line for line in last.log.splitlines() if " order_failed " in line] == [True]


def test_order_that_runs_alone_begins_when_all_others_have_ended_and_keeps_others_out(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., list[dict[str, Any]]],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    def has(what: str, order_id: UUID) -> bool:
        return str(order_id) in {note["order_id"] for note in notes(what)}

    first = queue.submit(3)
    start_worker(STEPS, ORDERS_CONCURRENCY=4)
    wait_until(lambda: len(notes("begun")) == 3)
    with queue.connection.transaction():
        dangerous, *others = queue.submit(3)
        make_dangerous(queue, dangerous)

    for order_id in (*first, *others):
        open_gate(str(order_id))
    wait_until(lambda: has("begun", dangerous))
    before = [note["what"] for note in notes()][:-1]
    (last,) = queue.submit()
    open_gate(str(last))
    # A worker with a free slot would have looked for orders by then.
    beat = queue.one("SELECT max(heartbeat_at) FROM workers")
    wait_until(lambda: queue.one("SELECT max(heartbeat_at) > %s + INTERVAL '1 second' FROM workers", beat))
    beside = has("begun", last)
    open_gate(str(dangerous))

    queue.until_all("completed")
    assert before.count("begun") == before.count("ended") >= 3
    assert not beside


def test_one_that_runs_alone_and_whose_claim_was_not_answered_runs_alone_all_the_same(
    start_worker: StartWorker,
    queue: Queue,
    database_url: str,
    notes: Callable[..., list[dict[str, Any]]],
    wait_until: Callable[..., Any],
    open_gate: Callable[..., None],
) -> None:
    with queue.connection.transaction():
        dangerous, behind = queue.submit(2)
        make_dangerous(queue, dangerous)
    loss = Loss("orders-dispatcher", b"ada")
    with Wire(database_url, loss) as wire:
        worker = start_worker(STEPS, url=wire.url, ORDERS_CONCURRENCY=2, ORDERS_LEASE_SECONDS=10)
        wait_until(lambda: notes("begun"))
        open_gate(str(dangerous))
        queue.until(dangerous, "completed")
        open_gate(str(behind))
        queue.until(behind, "completed")

    assert loss.suffered
    assert "claims_recovered" in worker.log
    assert [note["what"] for note in notes()] == ["begun", "ended", "begun", "ended"]

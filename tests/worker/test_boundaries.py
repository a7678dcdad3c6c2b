import signal
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest

from tests.wire import Crossing
from tests.worker.conftest import Queue, StartWorker, Worker
from tests.worker.victims import (
    BOOKING_TRIGGER,
    Boundary,
    Life,
    Scene,
    Victim,
    audit,
    walk,
    were_halted_around,
)

RETURNS = "handle = book"

RAISES = """
def handle(order, context):
    book(order, context)
    raise ValueError("no")
"""

REJECTS = """
def handle(order, context):
    book(order, context)
    raise Reject("no")
"""

AGREES_TO_A_CANCEL = """
from schema.queue.cancel import cancel

def handle(order, context):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        cancel(database, order.order_id)
    book(order, context)
    raise Cancelled
"""

IS_CUT_SHORT = """
def handle(order, context):
    book(order, context)
    while not context.cancel_requested:
        time.sleep(0.005)
"""

LIVES = {
    "leaves it to a trigger": Life(
        "handle = be_done",
        heir="handle = be_done",
        end="completed",
        ends_by=b"finished AS",
        trigger=BOOKING_TRIGGER,
    ),
    "returns": Life(RETURNS, heir=RETURNS, end="completed", ends_by=b"COMMIT"),
    "raises": Life(RAISES, heir=RETURNS, end="completed", ends_by=b"ending AS"),
    "rejects": Life(REJECTS, heir=REJECTS, end="failed", ends_by=b"ending AS"),
    "agrees to a cancel": Life(
        AGREES_TO_A_CANCEL, heir=AGREES_TO_A_CANCEL, end="cancelled", ends_by=b"ending AS"
    ),
    "is cut short": Life(
        IS_CUT_SHORT, heir=RETURNS, end="completed", ends_by=b"ending AS", shutdown_seconds=0
    ),
}

AT_THE_GATE = """
work = handle

def handle(order, context):
    wait_for("{gate}")
    work(order, context)
"""

# Orders that are neither at an end nor in the hands of the worker with this process id.
OTHERS_UNFINISHED = """
SELECT count(*)
FROM orders
WHERE finished_at IS NULL
  AND worker_id IS DISTINCT FROM (SELECT worker_id FROM workers WHERE pid = %s AND dead_at IS NULL)
"""

# Those whose late writes are of every kind.
LATE = ["leaves it to a trigger", "returns", "raises"]

NAMES = ["orders-dispatcher", "orders-handler", "orders-heartbeat", "orders-housekeeping"]


@pytest.fixture
def scene(
    queue: Queue, start_worker: StartWorker, database_url: str, wait_until: Callable[..., Any]
) -> Iterator[Scene]:
    scene = Scene(queue=queue, start_worker=start_worker, url=database_url, wait_until=wait_until)
    yield scene
    scene.close()


def before_the_commit(crossing: Crossing) -> bool:
    return not crossing.answered and crossing.name == "orders-handler" and b"COMMIT" in crossing.content


def after_the_commit(crossing: Crossing) -> bool:
    return crossing.answered and crossing.name == "orders-handler" and b"COMMIT" in crossing.content


@pytest.mark.proof
def test_killed_before_its_commit_a_worker_has_done_nothing_and_after_it_all(scene: Scene) -> None:
    scene.queue.submit(2)
    scene.halt([before_the_commit, after_the_commit], signal.SIGKILL, life=LIVES["returns"])
    assert scene.queue.counts() == {"processing": 1, "completed": 1}
    audit(scene.queue)

    scene.start(RETURNS)

    scene.finish("completed")
    assert sorted(scene.queue.all("SELECT attempt FROM orders")) == [(1,), (2,)]


@pytest.mark.slow
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_killed_at_any_boundary_of_its_life_a_worker_leaves_the_ledger_right(
    scene: Scene, life: Life
) -> None:
    def kill(moments: list[Boundary]) -> list[Victim]:
        scene.queue.submit(2 * len(moments))
        return scene.halt(moments, signal.SIGKILL, life=life)

    scene.queue.connection.execute(life.trigger)
    victims = list(chain.from_iterable(walk(["orders-worker", *NAMES], kill, stride=1)))
    scene.start(life.heir, ORDERS_CONCURRENCY=8)
    scene.finish(life.end)

    assert were_halted_around(victims, life.ends_by)
    assert {victim.worker.wait() for victim in victims if not victim.crossing} == {0}
    print(sum(victim.crossing is not None for victim in victims), "killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orders-dispatcher", "orders-heartbeat", "orders-housekeeping"])
def test_killed_while_idle_a_worker_leaves_nothing_behind(scene: Scene, name: str) -> None:
    later = [Boundary(name, number, answered) for number in range(5, 9) for answered in (False, True)]
    scene.halt(later, signal.SIGKILL, life=LIVES["returns"])
    scene.queue.submit(10)

    scene.start(RETURNS)

    scene.finish("completed")
    assert scene.queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]


@pytest.mark.slow
@pytest.mark.parametrize("life", [LIVES[name] for name in LATE], ids=LATE)
def test_stopped_at_any_boundary_a_worker_that_comes_back_too_late_changes_nothing(
    scene: Scene, life: Life, open_gate: Callable[..., None]
) -> None:
    def stop(moments: list[Boundary]) -> list[Victim]:
        scene.queue.submit(2 * len(moments))
        return scene.halt(moments, signal.SIGSTOP, life=life, lease_seconds=1)

    scene.queue.connection.execute(life.trigger)
    met: list[Victim] = []
    for round_number, zombies in enumerate(walk(NAMES, stop, stride=2)):
        gate = f"gate {round_number}"
        heir = inherit(scene, zombies, life=life, gate=gate)
        before = records(scene.queue)

        for zombie in zombies:
            zombie.resume()
        for zombie in zombies:
            settle(scene, zombie.worker)

        assert records(scene.queue) == before
        open_gate(gate)
        scene.finish(life.end)
        assert heir.stop() == 0
        met += zombies
    assert were_halted_around(met, life.ends_by)
    print(sum(zombie.crossing is not None for zombie in met), "stopped")


def inherit(scene: Scene, zombies: list[Victim], *, life: Life, gate: str) -> Worker:
    """Start a worker that takes every order when these are declared dead, and waits at the gate with them."""
    heir = scene.start(f"{life.heir}\n{AT_THE_GATE.format(gate=gate)}", ORDERS_CONCURRENCY=100)
    pids = {zombie.worker.pid for zombie in zombies}
    scene.wait_until(lambda: not pids & living(scene.queue))
    scene.wait_until(lambda: scene.queue.one(OTHERS_UNFINISHED, heir.pid) == 0)
    return heir


def settle(scene: Scene, worker: Worker) -> None:
    """Wait until the worker goes on under a new id, or has left as it was told, and have it leave."""
    scene.wait_until(lambda: not worker.running or worker.pid in living(scene.queue))
    assert worker.stop() == 0


def living(queue: Queue) -> set[int]:
    return {pid for (pid,) in queue.all("SELECT pid FROM workers WHERE dead_at IS NULL")}


def records(queue: Queue) -> list[list[Any]]:
    return [queue.all(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("orders", "attempts", "ledger")]

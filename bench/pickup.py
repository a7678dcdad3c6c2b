"""How soon is an order begun that arrives in an empty line?

Load: one order at a time, inserted and announced as the API does it, with a pause of a tenth of a second, to
one idle worker with one slot; the time from just before the insert to the handler's first line. Bound:
Graphile Worker with its default settings, given its jobs by its SQL function, on the same server.
"""

import random
import subprocess
import time
from collections.abc import Callable, Iterator

import psycopg

from bench.measurement import Measurement
from bench.peers import run
from bench.peers.keeps import GRAPHILE
from bench.stage import Stage
from schema.queue import wake

INSERT = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
VALUES (gen_random_uuid(), %s, ARRAY['tea'], 150.75)
"""

ADD_JOB = "SELECT graphile_worker.add_job('order', json_build_object('user_id', %s::text))"


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the median and the 99th percentile."""
    run.set_up()
    count = 200 if full else 100
    ours, peer = sorted(_ours(stage, count)), sorted(_graphile(stage, count))
    for name, at in (("p50", count // 2), ("p99", round(count * 0.99) - 1)):
        yield Measurement("pickup", name, "ms", [ours[at]], GRAPHILE.name, [peer[at]], 1, less_is_better=True)


def _ours(stage: Stage, count: int) -> list[float]:
    stage.fill(0)
    stamps = stage.folder / "stamps"
    with stage.connect() as connection, stage.workers(1, handler="stamp", slots=1):

        def insert(number: int) -> None:
            connection.execute(INSERT, (str(number),))
            wake.notify(connection)

        return _milliseconds(count, insert, lambda: stamps.read_text().split("\n") if stamps.exists() else [])


def _graphile(stage: Stage, count: int) -> list[float]:
    url, command = run.fill_graphile(stage, 0)
    output = stage.folder / "graphile"
    with output.open("w") as stdout, psycopg.connect(url, autocommit=True) as connection:
        peer = subprocess.Popen([*command, str(count + 1), "stamp"], stdout=stdout, stderr=subprocess.DEVNULL)
        try:
            return _milliseconds(
                count,
                lambda number: connection.execute(ADD_JOB, (str(number),)),
                lambda: output.read_text().split("\n"),
            )
        finally:
            peer.terminate()
            peer.wait()


def _milliseconds(
    count: int, insert: Callable[[int], object], stamps: Callable[[], list[str]]
) -> list[float]:
    """Insert one by one, the first of them to see that somebody is there; return how long each took."""
    sent = {}
    for number in range(count + 1):
        sent[str(number)] = time.time()
        insert(number)
        _wait(lambda number=number: sum(map(bool, stamps()[:-1])) > number)
        time.sleep(0.1 + random.uniform(0, 0.05))
    begun = dict(line.split() for line in stamps() if line)
    return [1000 * (float(begun[number]) - at) for number, at in sent.items() if number != "0"]


def _wait(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        if time.monotonic() > give_up_at:
            raise SystemExit("an order was not begun within 30 seconds")
        time.sleep(0.005)

"""How fast is a full line worked off, beside other queues on the same server?

Load: as in `drain.py`. Bound: Graphile Worker and PgQueuer at their best documented settings, in
turns with ours (`peers/run.py`). They delete a job when it is done; ours keeps the order and shows its state.
"""

from collections.abc import Iterator

from bench import drain
from bench.measurement import Measurement, in_turns
from bench.peers import run
from bench.peers.run import GRAPHILE, PGQUEUER
from bench.stage import Stage


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield a measurement for each case; install the peers first."""
    run.set_up()
    line = 100_000 if full else 50_000
    few = line // 5

    ours, peer = in_turns(lambda: drain.ours(stage, line, slots=100), lambda: run.graphile(stage, line))
    yield Measurement("peers", "1 worker, 100 slots", "orders/s", ours, GRAPHILE, peer, 1.0)
    ours, peer = in_turns(
        lambda: drain.ours(stage, line, slots=100), lambda: run.pgqueuer(stage, line, batch=200)
    )
    yield Measurement("peers", "1 worker, 100 slots", "orders/s", ours, f"{PGQUEUER}, batch 200", peer, 1.8)
    ours, peer = in_turns(
        lambda: drain.ours(stage, line, slots=100, workers=2), lambda: run.graphile(stage, line, processes=2)
    )
    yield Measurement("peers", "2 workers, 100 slots each", "orders/s", ours, f"two of {GRAPHILE}", peer, 1.2)
    ours, peer = in_turns(
        lambda: drain.ours(stage, few, slots=10), lambda: run.pgqueuer(stage, few, batch=10)
    )
    yield Measurement("peers", "1 worker, 10 slots", "orders/s", ours, f"{PGQUEUER}, batch 10", peer, 1.5)

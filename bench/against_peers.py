"""How fast is a full line worked off, beside other queues on the same server?

Load: as in `drain.py`; a slow peer gets fewer jobs, so that it takes seconds. Bound: each peer at its best
documented settings, in turns with ours (`peers/run.py`). What each keeps of a job is in `peers/keeps.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import drain
from bench.measurement import Measurement, in_turns
from bench.peers import run
from bench.peers.keeps import AWA, GRAPHILE, PG_BOSS, PGQUEUER, PROCRASTINATE
from bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Case:
    """Ours beside a peer: `share` of a full line for both, and of that `peers_share` for the peer."""

    name: str
    against: str
    peer: Callable[[Stage, int], float]
    bound: float
    slots: int = 100
    workers: int = 1
    share: float = 1.0
    peers_share: float = 1.0


ONE = "1 worker, 100 slots"

CASES = (
    Case(ONE, GRAPHILE.name, run.graphile, bound=1.0),
    Case(ONE, PG_BOSS.name, run.pg_boss, bound=1.0),
    Case(
        ONE,
        f"{PGQUEUER.name}, batch 200",
        lambda stage, count: run.pgqueuer(stage, count, batch=200),
        bound=1.8,
    ),
    Case(ONE, AWA.name, run.awa, bound=1.0, peers_share=0.4),
    Case(ONE, PROCRASTINATE.name, run.procrastinate, bound=1.0, peers_share=0.04),
    Case(
        "2 workers, 100 slots each",
        f"two of {GRAPHILE.name}",
        lambda stage, count: run.graphile(stage, count, processes=2),
        bound=1.2,
        workers=2,
    ),
    Case(
        "1 worker, 10 slots",
        f"{PGQUEUER.name}, batch 10",
        lambda stage, count: run.pgqueuer(stage, count, batch=10),
        bound=1.5,
        slots=10,
        share=0.2,
    ),
)


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield a measurement for each case; install the peers first."""
    run.set_up()
    line = 100_000 if full else 50_000
    for case in CASES:
        yield _measured(stage, case, round(line * case.share))


def _measured(stage: Stage, case: Case, count: int) -> Measurement:
    ours, peer = in_turns(
        lambda: drain.ours(stage, count, slots=case.slots, workers=case.workers),
        lambda: case.peer(stage, round(count * case.peers_share)),
    )
    return Measurement("peers", case.name, "orders/s", ours, case.against, peer, case.bound)

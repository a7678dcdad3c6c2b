"""Does a long line slow the queue down?

Load: one worker with 100 slots that works off the head of a line of a million. Bound: the same on a line of
ten thousand, in turns.
"""

from collections.abc import Iterator

from bench import history
from bench.measurement import Measurement, in_turns
from bench.stage import Stage

LONG = 1_000_000
SHORT = 10_000


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the comparison."""
    count = LONG if full else LONG // 5
    with Stage() as other:
        stage.fill(count)
        long, short = in_turns(lambda: history.drain(stage, SHORT), lambda: _short(other))
    yield Measurement("depth", f"a line of {count:,}", "orders/s", long, f"a line of {SHORT:,}", short, 0.9)


def _short(stage: Stage) -> float:
    stage.fill(SHORT)
    return history.drain(stage, SHORT)

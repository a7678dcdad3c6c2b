"""Break the statements one mutation at a time, in processes of their own, and see what notices."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from tests.model.agreement import DifferenceError
from tests.model.database import RealQueue, real_queue
from tests.model.mutations import MUTATIONS
from tests.model.run import run

LIVES = 400
LIVES_OF_REDUNDANT = 60
STEPS = 50
BATCH = 6

SOUND = "nothing (the statements as they are)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`caught_by` names the call and what differed after it; None if nothing did."""

    number: int
    caught_by: str | None

    @property
    def expected(self) -> bool:
        """Tell whether this is as it should be: only what is redundant goes unnoticed."""
        return (self.caught_by is None) == bool(MUTATIONS[self.number].redundant)


def examine(server_url: str, template: str, *, processes: int = 2) -> Iterator[Verdict]:
    """Yield the verdict on each mutation, in their order."""
    batches = [range(first, min(first + BATCH, len(MUTATIONS))) for first in range(0, len(MUTATIONS), BATCH)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for verdicts in pool.map(partial(_verdicts, server_url, template), batches):
            yield from verdicts


def _verdicts(server_url: str, template: str, numbers: Sequence[int]) -> list[Verdict]:
    with real_queue(server_url, template) as real:
        return [Verdict(number, _caught_by(real, number)) for number in numbers]


def _caught_by(real: RealQueue, number: int) -> str | None:
    mutation = MUTATIONS[number]
    lives = LIVES_OF_REDUNDANT if mutation.redundant else LIVES
    with mutation.applied():
        try:
            run(real, examples=lives, steps=STEPS, shrink=False)
        except DifferenceError as difference:
            return f"{difference.call}: {difference.where}"
    return None

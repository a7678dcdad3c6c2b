"""Break the statements one mutation at a time, in processes of their own, and see what notices."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from hypothesis.errors import Flaky

from tests.model.agreement import DifferenceError
from tests.model.database import RealQueue, real_queue
from tests.model.mutations import MUTATIONS, Mutation
from tests.model.run import run

LIVES = 1500
"""How many lives a mutation may go unnoticed. Most are noticed in the first ten."""

LIVES_OF_HARMLESS = 100
STEPS = 60
BATCH = 3

FAVOURED = {
    "EXCHANGE": ("claim_next", "exchange", "end", "lock", "refer"),
    "EXCHANGE_ALONE": ("claim_next", "exchange", "leave", "register", "sweep", "lock", "refer"),
    "RECOVER_CLAIMS": ("recover_claims", "claim_next"),
    "_COMPLETE": ("complete", "claim_next", "lock", "refer"),
    "_CLAIM_STATE": ("look", "claim_next"),
    "_IS_FREE": ("look", "claim_next", "lock", "refer"),
    "_END": ("end", "claim_next", "edit", "lower_limit", "refer"),
    "RETURN_DUE": ("end", "pass_time", "return_due", "lock", "refer"),
    "_DECLARE_DEAD": ("declare_dead", "disconnect", "hold_session", "pass_time"),
    "SWEEP": ("claim_next", "leave", "register", "sweep", "refer"),
    "SWEPT": ("claim_next", "leave", "pass_time", "mark_swept"),
    "PATROL": ("claim_next", "leave", "register", "patrol", "refer"),
    "_BEAT": ("beat", "leave", "lock"),
    "_LEAVE": ("leave", "pass_time"),
    "_HOLD_SESSION": ("hold_session", "declare_dead", "pass_time"),
    "_PRUNE": ("leave", "mark_swept", "pass_time", "prune"),
    "_CANCEL": ("cancel", "claim_next", "lock", "refer"),
    "_FIND_FAILED": ("claim_next", "end", "pass_time", "redrive_failed"),
    "_REDRIVE_FAILED": ("cancel", "claim_next", "edit", "end", "redrive_failed", "lock", "refer"),
    "_REDRIVE": ("cancel", "claim_next", "edit", "end", "redrive", "lock", "refer"),
    "_SWITCH": ("switch", "lock", "pass_time"),
    "_RESTORE": ("switch", "delete_switch", "lock"),
}
"""The calls that have to do with a statement. Any other call may still be the one that notices."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutation; None stands for the statements as they are.

    `caught_by` names the call and what differed after it; None if nothing did.
    """

    mutation: Mutation | None
    caught_by: str | None

    @property
    def expected(self) -> bool:
        """Tell whether this is as it should be: only what is sound or redundant goes unnoticed."""
        return (self.caught_by is None) == _is_harmless(self.mutation)


def examine(server_url: str, template: str, *, processes: int = 2) -> Iterator[Verdict]:
    """Yield the verdict on the sound statements, then on each mutation in their order."""
    # Numbers, because a mutation holds a module, which no process can send to another.
    numbers = [None, *range(len(MUTATIONS))]
    batches = [numbers[first : first + BATCH] for first in range(0, len(numbers), BATCH)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for batch, caught_by in zip(
            batches, pool.map(partial(_all_caught_by, server_url, template), batches), strict=True
        ):
            for number, found in zip(batch, caught_by, strict=True):
                yield Verdict(_mutation(number), found)


def _all_caught_by(server_url: str, template: str, numbers: Sequence[int | None]) -> list[str | None]:
    with real_queue(server_url, template) as real:
        return [_caught_by(real, _mutation(number)) for number in numbers]


def _is_harmless(mutation: Mutation | None) -> bool:
    return mutation is None or bool(mutation.redundant)


def _mutation(number: int | None) -> Mutation | None:
    return None if number is None else MUTATIONS[number]


def _caught_by(real: RealQueue, mutation: Mutation | None) -> str | None:
    lives = LIVES_OF_HARMLESS if _is_harmless(mutation) else LIVES
    favoured = FAVOURED[mutation.statement] if mutation is not None else ()
    with mutation.applied() if mutation is not None else nullcontext():
        try:
            run(real, examples=lives, steps=STEPS, shrink=False, favoured=favoured)
        except DifferenceError as difference:
            return f"{difference.call}: {difference.where}"
        except Flaky:
            # An answer without an order of its own, say, differs from time to time.
            return "a life that went another way when it was lived again"
    return None

"""Run many lives of the queue; the first difference ends the run."""

from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.database import RealQueue
from tests.model.machine import QueueMachine


def run(
    real: RealQueue, *, examples: int, steps: int, shrink: bool = True, favoured: Sequence[str] = ()
) -> None:
    """Raise the `DifferenceError` of the shortest life that shows one, with that life as a script.

    Calls of `favoured` names are made more often. Without `shrink` it is the first difference that was
    found, and always the same lives are tried.
    """
    machine = QueueMachine.favouring(favoured) if favoured else QueueMachine
    run_state_machine_as_test(
        lambda: machine(real),  # type: ignore[arg-type]  # whatever makes a machine will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=not shrink,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )

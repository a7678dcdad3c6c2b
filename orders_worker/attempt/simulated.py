"""The handler that runs when none is named: it takes its time and does nothing else."""

import time
from dataclasses import dataclass

from orders_worker.handler import Context, Order


@dataclass(frozen=True, slots=True)
class Simulated:
    """Sleeps `seconds` for every order."""

    seconds: float

    def __call__(self, order: Order, context: Context) -> None:  # noqa: ARG002 - the handler protocol
        """Work on one order."""
        time.sleep(self.seconds)

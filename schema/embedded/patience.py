"""Wait for something that usually comes at once, and report a long wait."""

import sys
import time

from schema.errors import StartError

REPORT_SECONDS = 3.0
STEP_SECONDS = 0.02
LATER_STEP_SECONDS = 0.25


class Patience:
    """Waits in small steps: a line on stderr after three seconds, a `StartError` after `seconds`."""

    def __init__(self, seconds: float, awaited: str) -> None:
        self._seconds = seconds
        self._awaited = awaited
        self._began = time.monotonic()
        self._reported = False

    def wait(self) -> None:
        """Wait one step."""
        waited = time.monotonic() - self._began
        if waited > self._seconds:
            raise StartError(f"gave up after {self._seconds:g} seconds of waiting for {self._awaited}")
        if waited > REPORT_SECONDS and not self._reported:
            say(f"waiting for {self._awaited}, {self._seconds:g} seconds at most")
            self._reported = True
        # Each connection that is tried during the server's recovery leaves a line in its log.
        time.sleep(LATER_STEP_SECONDS if self._reported else STEP_SECONDS)


def say(line: str) -> None:
    """Print a line to the person at the terminal, on stderr."""
    print(f"orders: {line}", file=sys.stderr, flush=True)

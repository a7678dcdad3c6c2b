"""A loop in a thread of its own: one turn after another until it is stopped, whatever a turn raises."""

import threading
from collections.abc import Callable
from typing import Protocol

STOP_SECONDS = 5.0
"""How long `stop` waits for the turn that is under way, unless it is told otherwise."""


class Pause(Protocol):
    """What a loop waits with between two turns. Any thread may end the wait."""

    def wait(self, seconds: float) -> None:
        """Wait until `wake` is called, something else to act on arrives, or the time is over."""

    def wake(self) -> None:
        """End the wait, the present one or else the next one."""

    def close(self) -> None:
        """Release what it waits with. No thread may wait any more."""


class Loop:
    """Runs `turn` again and again; it returns how many seconds to pause before the next turn.

    What it raises goes to `failed`, which returns the pause instead; that one nothing but `stop` cuts short.
    `ended` runs after the last turn, in the loop's thread.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], float],
        *,
        failed: Callable[[Exception], float],
        pause: Pause,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._turn = turn
        self._failed = failed
        self._ended = ended
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin the first turn."""
        self._thread.start()

    def wake(self) -> None:
        """Begin the next turn now, or as soon as the present one is over. Any thread may call it."""
        self._pause.wake()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End after the present turn, and wait for that up to `seconds`."""
        self._stopped.set()
        self._pause.wake()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._run_once()
        finally:
            self._ended()
            self._pause.close()

    def _run_once(self) -> None:
        try:
            self._pause.wait(self._turn())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next turn tries again
            self._stopped.wait(self._failed(error))

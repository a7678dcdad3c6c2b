"""All kinds of faults by name, and the injector that makes them happen."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random

import psycopg

from tests.chaos import database_faults, network_faults, process_faults
from tests.chaos.scene import Scene, Told

Fault = Callable[[Scene, Random], Iterator[Told]]

PAUSE_SECONDS = 2.0
PAIR_SHARE = 0.2

FAULTS: dict[str, Fault] = {
    "kill-worker": process_faults.kill_worker,
    "kill-api": process_faults.kill_api,
    "restart-worker": process_faults.restart_worker,
    "restart-api": process_faults.restart_api,
    "stop-worker": process_faults.stop_worker,
    "stop-worker-beyond-lease": process_faults.stop_worker_beyond_its_lease,
    "stop-api": process_faults.stop_api,
    "wrong-clock": process_faults.wrong_clock,
    "kill-session": database_faults.kill_session,
    "terminate-session": database_faults.terminate_session,
    "kill-server": database_faults.kill_server,
    "stop-server": database_faults.stop_server,
    "full-pool": database_faults.full_pool,
    "long-snapshot": database_faults.long_snapshot,
    "lock-rows": database_faults.lock_rows,
    "cut-network": network_faults.cut_network,
    "stall-network": network_faults.stall_network,
    "lose-answers": network_faults.lose_answers,
    "reset-network": network_faults.reset_network,
}

IN_BACKGROUND = frozenset({"long-snapshot", "stop-worker-beyond-lease"})
"""What lasts so long that others begin meanwhile."""

HARMLESS = frozenset(
    {"kill-worker", "restart-worker", "kill-api", "restart-api", "stop-api", "wrong-clock"}
    | {"long-snapshot", "lock-rows"}
)
"""What should not delay a rescue by the others."""

NETWORK = frozenset({"cut-network", "stall-network", "lose-answers", "reset-network"})
"""What can keep the server from seeing that a worker's session is gone."""


class Injector:
    """Lets one fault after another happen, now and then two at once, in an order that `dice` decide.

    Every kind comes once before one comes again. Between two are `pause_seconds` on average.
    """

    def __init__(
        self, scene: Scene, kinds: Sequence[str], dice: Random, *, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._scene = scene
        self._kinds = kinds
        self._pause_seconds = pause_seconds
        self._dice = dice
        self._deck: list[str] = []
        self._lasting: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="injector")
        self.failures: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the scene is over and everything is undone, if it has begun."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._kinds and not self._scene.pause(0.5 + self._dice.expovariate(1 / self._pause_seconds)):
            count = 2 if self._dice.random() < PAIR_SHARE else 1
            for thread in [thread for _ in range(count) if (thread := self._begin())]:
                thread.join()
        for thread in self._lasting:
            thread.join()

    def _begin(self) -> threading.Thread | None:
        """Begin the next fault; return its thread if it is to be waited for."""
        kind = self._deal()
        dice = Random(self._dice.getrandbits(64))
        thread = threading.Thread(target=self._happen, args=[kind, dice], name=kind)
        thread.start()
        if kind in IN_BACKGROUND:
            self._lasting.append(thread)
            return None
        return thread

    def _deal(self) -> str:
        if not self._deck:
            self._deck = self._dice.sample(self._kinds, len(self._kinds))
        return self._deck.pop()

    def _happen(self, kind: str, dice: Random) -> None:
        fault = FAULTS[kind](self._scene, dice)
        try:
            if told := next(fault, None):
                # Another fault may have the server away.
                with self._scene.happening(kind, told), suppress(psycopg.OperationalError):
                    next(fault, None)
        except Exception as error:  # noqa: BLE001 - a fault that fails is the harness's own failure
            self.failures.append(f"{kind}: {type(error).__name__}: {error}")
            self._scene.over.set()

"""What has ended and is not yet in the database: it is handed in until it is written or lost."""

from collections.abc import Iterable

from orders_worker.dispatch.claims import Claims
from schema.order import Fence
from schema.queue import endings
from schema.queue.endings import Ending
from schema.queue.exchange import Exchanged
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.states import Outcome

LOGGED_ERROR_LENGTH = 200

SWALLOWED = "a trigger or rule of the database undid it"
"""What is said of an end that the database took without an error, and did not write."""

_log = logs.Log(__name__)


class Finished:
    """The ended claims of `claims`, which they leave from here.

    `fresh` tells that some were never handed in. The others are those whose rows somebody had locked, and
    can wait for the next poll.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._endings: dict[Fence, Ending] = {}
        self._completed: set[Fence] = set()
        self.fresh = False

    def __bool__(self) -> bool:
        return bool(self._completed or self._endings)

    @property
    def completed(self) -> list[Fence]:
        """The completions, for the next exchange."""
        return list(self._completed)

    @property
    def endings(self) -> list[Ending]:
        """The other endings, for `write`."""
        return list(self._endings.values())

    def complete(self, fence: Fence) -> None:
        """Add a completion."""
        self._completed.add(fence)
        self.fresh = True

    def end(self, ending: Ending) -> None:
        """Add another ending, also instead of a completion."""
        self._completed.discard(ending.fence)
        self._endings[ending.fence] = ending
        self.fresh = True

    def forget(self) -> None:
        """Drop everything: the claims are somebody else's."""
        self._completed.clear()
        self._endings.clear()

    def settle(self, finished: Iterable[Fence], exchanged: Exchanged) -> int:
        """Take note of what became of completions that an exchange was given; return how many are written.

        A swallowed one has failed its attempt, as one that the database refuses with an error has.
        """
        unsettled = exchanged.busy | exchanged.swallowed
        settled = [fence for fence in finished if fence not in unsettled]
        self._completed.difference_update(settled)
        self._claims.drop(settled)
        self.fresh = False
        for fence in exchanged.swallowed:
            self.end(self._claims[fence].ending(Outcome.RAISED, f"the completion: {SWALLOWED}"))
        return len(settled) - len(exchanged.lost)

    def write(self, connection: Connection, ended: list[Ending]) -> None:
        """Write these of the endings; keep those whose rows are locked, or that the database refuses."""
        if not ended:
            return
        unwritten = endings.end(connection, self._claims.worker_id, endings=ended)
        for ending in ended:
            if ending.fence in unwritten.swallowed:
                _log.error("ending_refused", reason=SWALLOWED, order_id=ending.fence.order_id)
            elif ending.fence not in unwritten.busy:
                _report(
                    ending,
                    lost=ending.fence in unwritten.lost,
                    attempt_limit=self._claims[ending.fence].claim.attempt_limit,
                )
                del self._endings[ending.fence]
                self._claims.drop([ending.fence])


def _report(ending: Ending, *, lost: bool, attempt_limit: int) -> None:
    _log.info(
        "claim_lost" if lost else f"attempt_{ending.outcome}",
        order_id=ending.fence.order_id,
        attempt=ending.fence.attempt,
        attempt_limit=attempt_limit,
        error=(ending.error or "").partition("\n")[0][:LOGGED_ERROR_LENGTH] or None,
    )

"""One attempt at one order, from the call of the handler to how it ended."""

import asyncio
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import takewhile
from types import FrameType
from typing import Any

from orders_worker.attempt import event_loop
from orders_worker.attempt.backoff import backoff
from orders_worker.attempt.checkout import Checkout
from orders_worker.attempt.commit import commit
from orders_worker.attempt.context import Context
from orders_worker.attempt.event_loop import EventLoop
from orders_worker.attempt.outcome import failure, refuse_unfinished
from orders_worker.attempt.pool import HandlerPool
from orders_worker.handler import Handler
from schema.order import Claim
from schema.queue.endings import Ending
from schema.runtime import logs
from schema.states import Outcome

_log = logs.Log(__name__)


class Done(Enum):
    """How an attempt ends whose handler returned."""

    TO_COMPLETE = auto()
    """The completion is still to be written."""

    NOTHING_TO_WRITE = auto()
    """It is committed already, or the claim is lost."""


Result = Done | Ending


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """What every attempt of a worker needs: the handler, its limits, and where it writes."""

    handler: Handler
    pool: HandlerPool
    max_attempts: int
    backoff_seconds: float
    timeout_seconds: float | None


class Attempt:
    """Runs in a slot's thread. The dispatcher's thread may abandon it at any moment."""

    def __init__(self, claim: Claim, *, worker_id: str, settings: AttemptSettings) -> None:
        self.claim = claim
        self.fence = claim.fence
        self.worker_id = worker_id
        self._settings = settings
        timeout = settings.timeout_seconds
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._checkout = Checkout(settings.pool)
        self.context = Context(claim, deadline=self.deadline, checkout=self._checkout)
        self._lock = threading.Lock()
        self._over = False
        self._abandoned = False
        self._thread_id = 0
        self._task: asyncio.Task[Any] | None = None
        self.replaced = False

    def run(self, loop: EventLoop) -> Result | None:
        """Call the handler; return how it ended, or None if the attempt was abandoned meanwhile.

        What a handler has to be awaited for runs in `loop`.
        """
        self._thread_id = threading.get_ident()
        try:
            result = None if self._abandoned else self._result(loop)
        except BaseException:  # noqa: BLE001 - such as one that another thread of the handler's throws in here
            result = self.ending(Outcome.RAISED, "the attempt's end could not be told")
        with self._lock:
            self._over = True
            return None if self._abandoned else result

    def abandon(self) -> bool:
        """Abandon the attempt: ignore its result, cut off its transaction, cancel what it awaits.

        Returns False, and does nothing, when it is over or abandoned already.
        """
        with self._lock:
            if self._over or self._abandoned:
                return False
            self._abandoned = True
        self.context.cancel_requested = True
        self._checkout.cut_off()
        if self._task is not None:
            event_loop.cancel(self._task)
        return True

    def stack(self) -> list[FrameType]:
        """Return where its handler is now, the outermost call first; nothing if it has not begun."""
        if self._task is not None:
            return event_loop.frames(self._task)[1:]
        innermost = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - its documented name
        frames = traceback.walk_stack(innermost) if innermost else ()
        inner = takewhile(lambda each: each[0].f_code.co_filename != __file__, frames)
        return [frame for frame, _ in inner][::-1]

    def replace(self) -> bool:
        """Let its thread end with it, because another one takes the slot; return False when it is over."""
        with self._lock:
            self.replaced = not self._over
            return self.replaced

    def ending(
        self, outcome: Outcome, error: str | None = None, *, retry_seconds: float | None = None
    ) -> Ending:
        """Build the `Ending` for an outcome. By default a retry's pause grows with the attempts spent."""
        if retry_seconds is None:
            # Since the first claim, a release or a redrive: these raise the limit.
            spent = self.claim.attempt - (self.claim.attempt_limit - self._settings.max_attempts)
            retry_seconds = backoff(max(spent, 1), base_seconds=self._settings.backoff_seconds)
        return Ending(self.fence, outcome, error, retry_seconds=retry_seconds)

    def _result(self, loop: EventLoop) -> Result:
        try:
            return self._worked(loop)
        except BaseException as error:  # noqa: BLE001 - also a SystemExit is only this attempt's failure
            outcome, text, retry_seconds = failure(error)
            unexpected = outcome is Outcome.RAISED and retry_seconds is None
            if unexpected and not (self._abandoned and isinstance(error, asyncio.CancelledError)):
                _log.error("handler_raised", error=error, **self._names())
            return self.ending(outcome, text, retry_seconds=retry_seconds)

    def _names(self) -> dict[str, logs.Field]:
        return {"worker_id": self.worker_id, "order_id": self.claim.order_id, "attempt": self.claim.attempt}

    def _worked(self, loop: EventLoop) -> Result:
        try:
            result = self._settings.handler(self.claim, self.context)
            if inspect.isawaitable(result):
                result = loop.run(self._awaited(result))
            refuse_unfinished(result)
            return self._complete()
        finally:
            self._checkout.check_in()

    async def _awaited(self, work: Awaitable[object]) -> object:
        self._task = asyncio.current_task()
        if self._abandoned:
            raise asyncio.CancelledError
        return await work

    def _complete(self) -> Result:
        connection = self._checkout.current
        if connection is None:
            return Done.TO_COMPLETE
        if not commit(
            connection,
            self.worker_id,
            fence=self.fence,
            probe=self._settings.pool.probe,
            wanted=lambda: not self._abandoned,
        ):
            _log.warning("claim_lost", error=None, stack=(), **self._names())
        return Done.NOTHING_TO_WRITE

"""The event loop of a slot, for handlers that are coroutine functions."""

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Self


class EventLoop:
    """Opened by the first order that needs it, and kept: what a handler shares between orders is bound to it.

    Call `run` from the slot's thread.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run until the work is done; return its result or raise its error."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(work, context=contextvars.copy_context())


def cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel a task of another thread's loop."""
    with contextlib.suppress(RuntimeError):  # its loop is closed
        task.get_loop().call_soon_threadsafe(task.cancel)


def frames(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return where a suspended task waits, the outermost frame first."""
    found = []
    coroutine: Any = task.get_coro()
    while frame := getattr(coroutine, "cr_frame", None):
        found.append(frame)
        coroutine = coroutine.cr_await
    return found

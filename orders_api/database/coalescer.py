"""Coalesce concurrent calls: requests that need the same statement at the same time share one."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

TURN_SECONDS = 0.01
"""How long a call waits for its turn before it runs alone. A turn takes longer only when the database is
slow, or when a lock or a user's trigger delays one of its rows."""

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class _Call(Generic[Argument, Answer]):
    """One request's call. When it is no longer `open`, it has an `answer` or an `error`."""

    __slots__ = ("answer", "argument", "error", "open")

    def __init__(self, argument: Argument) -> None:
        self.argument = argument
        self.open = True
        self.answer: Answer
        self.error: BaseException | None = None


class Coalescer(Generic[Argument, Answer]):
    """Coalesces concurrent calls: one thread runs `answer` for every call that waits at that moment.

    A statement for each call costs up to twice as much under load: docs/profile.md. `answer` takes the
    arguments and returns as many answers in the same order. Each call raises what it raises. Several threads
    may run it at once.
    """

    def __init__(self, answer: Callable[[list[Argument]], Sequence[Answer]], *, turn_seconds: float) -> None:
        self._answer = answer
        self._turn_seconds = turn_seconds
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Call[Argument, Answer]] = []

    def call(self, argument: Argument) -> Answer:
        """Return this argument's answer, or raise what `answer` raised."""
        call: _Call[Argument, Answer] = _Call(argument)
        with self._lock:
            self._waiting.append(call)
        while call.open:
            if self._turn.acquire(timeout=self._turn_seconds):
                try:
                    if call.open:
                        self._run(self._take_all())
                finally:
                    self._turn.release()
            elif self._withdraw(call):
                self._run([call])
        if call.error is not None:
            raise call.error
        return call.answer

    def _take_all(self) -> list[_Call[Argument, Answer]]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def _withdraw(self, call: _Call[Argument, Answer]) -> bool:
        """Remove a call from those that wait; return False when another thread runs it already."""
        with self._lock:
            try:
                self._waiting.remove(call)
            except ValueError:
                return False
            return True

    def _run(self, calls: list[_Call[Argument, Answer]]) -> None:
        try:
            answers = self._answer([call.argument for call in calls])
            for call, answer in zip(calls, answers, strict=True):
                call.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of the calls raises it
            for call in calls:
                call.error = error
        for call in calls:
            call.open = False

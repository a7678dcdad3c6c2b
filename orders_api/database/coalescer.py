"""Requests that ask the database for the same thing at the same time share a statement."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

PATIENCE_SECONDS = 0.01
"""How long a request waits for its turn before it asks by itself: longer than a turn takes unless the
database is slow, or a lock or a trigger of its user's holds somebody up."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class _Question(Generic[Asked, Answer]):
    """What one request asks; there is an `answer` or an `error` once it is not `open`."""

    __slots__ = ("answer", "asked", "error", "open")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.open = True
        self.answer: Answer
        self.error: BaseException | None = None


class Together(Generic[Asked, Answer]):
    """Has each request wait for its turn; whoever has it asks for all that are waiting by then.

    A statement for each costs up to twice as much under load: docs/profile.md. `answer` is called, by several
    threads at once, with what some of them ask, after they have asked; it returns as many answers, in the
    same order, and what it raises each of them raises.
    """

    def __init__(
        self, answer: Callable[[list[Asked]], list[Answer]], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._answer = answer
        self._patience_seconds = patience_seconds
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Question[Asked, Answer]] = []

    def ask(self, asked: Asked) -> Answer:
        """Wait for the answer and return it, or raise what was raised instead."""
        question: _Question[Asked, Answer] = _Question(asked)
        with self._lock:
            self._waiting.append(question)
        while question.open:
            if self._turn.acquire(timeout=self._patience_seconds):
                try:
                    if question.open:
                        self._answer_all(self._all_waiting())
                finally:
                    self._turn.release()
            elif self._withdrawn(question):
                self._answer_all([question])
        if question.error is not None:
            raise question.error
        return question.answer

    def _all_waiting(self) -> list[_Question[Asked, Answer]]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def _withdrawn(self, question: _Question[Asked, Answer]) -> bool:
        """Take it out of those waiting, unless somebody is asking for it already."""
        with self._lock:
            try:
                self._waiting.remove(question)
            except ValueError:
                return False
            return True

    def _answer_all(self, questions: list[_Question[Asked, Answer]]) -> None:
        try:
            answers = self._answer([question.asked for question in questions])
            for question, answer in zip(questions, answers, strict=True):
                question.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of them raises it
            for question in questions:
                question.error = error
        for question in questions:
            question.open = False

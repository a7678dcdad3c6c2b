"""Requests that ask the database for the same thing at the same time share a statement."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

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
    """Each request waits for its turn; who has it asks for all that are waiting by then.

    A statement for each costs up to twice as much under load, most of it for the sleeping and waking around
    it; when nobody else asks nothing is different. `answer` is given what they ask and returns as many
    answers, in the same order; what it raises, all of them raise. It is called after each of them has asked.
    """

    def __init__(self, answer: Callable[[list[Asked]], list[Answer]]) -> None:
        self._answer = answer
        self._turn = threading.Lock()
        self._waiting: deque[_Question[Asked, Answer]] = deque()

    def ask(self, asked: Asked) -> Answer:
        """Return the answer."""
        question: _Question[Asked, Answer] = _Question(asked)
        self._waiting.append(question)
        with self._turn:
            if question.open:
                self._answer_all()
        if question.error is not None:
            raise question.error
        return question.answer

    def _answer_all(self) -> None:
        questions = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            answers = self._answer([question.asked for question in questions])
            for question, answer in zip(questions, answers, strict=True):
                question.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of them raises it
            for question in questions:
                question.error = error
        for question in questions:
            question.open = False

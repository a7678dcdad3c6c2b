"""One statement looks up the orders of all requests that ask at the moment."""

import threading
from collections import deque
from uuid import UUID

from orders_api.database import Database
from schema import orders


class _Question:
    """What one request asks; `answer` or `error` is there once it is not `open`."""

    __slots__ = ("answer", "error", "open", "order_id")

    def __init__(self, order_id: UUID) -> None:
        self.order_id = order_id
        self.open = True
        self.answer: str | None = None
        self.error: BaseException | None = None


class Lookup:
    """Shows orders. Each request waits for its turn; who has it asks for all that are waiting by then.

    A request of its own for each order costs twice as much under load, most of it for the waking and sleeping
    around it. Whoever asks is answered by a statement that begins later, so that it sees what was committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._waiting: deque[_Question] = deque()

    def show(self, order_id: UUID) -> str | None:
        """Return the order as a JSON object or None; raise what `Database.connection` does."""
        question = _Question(order_id)
        self._waiting.append(question)
        with self._turn:
            if question.open:
                self._ask()
        if question.error is not None:
            raise question.error
        return question.answer

    def _ask(self) -> None:
        asked = [self._waiting.popleft() for _ in range(len(self._waiting))]
        found: dict[UUID, str] = {}
        error = None
        try:
            with self._database.connection() as connection:
                found = orders.show(connection, [question.order_id for question in asked])
        except BaseException as raised:  # noqa: BLE001 - each of them raises it
            error = raised
        for question in asked:
            question.answer = found.get(question.order_id)
            question.error = error
            question.open = False

"""Make each call in the real database and in the model, and compare the answers and all rows."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from schema.errors import DatabaseError, OrdersError
from schema.states import Status
from tests.model.database import SESSIONS, START, RealQueue, disconnect
from tests.model.queue import Queue
from tests.model.rows import Database
from tests.model.tables import TABLES, Entry, Switch


class DifferenceError(AssertionError):
    """The database did not do what the model says. `call` is the last one, `where` says what differs."""

    def __init__(self, call: str, where: str, *, real: object, model: object) -> None:
        super().__init__(f"after {call}, {where}:\n  database: {real}\n  model:    {model}")
        self.call = call
        self.where = where


class Agreement(RuleBasedStateMachine):
    """The real queue beside the model's, with the same two sessions; `self.call` is what both did last."""

    def __init__(self, real: RealQueue) -> None:
        super().__init__()
        self.real = real
        self.database = Database(START)
        self.database.committed[Switch().key] = Switch()
        self.models = {name: Queue(self.database) for name in SESSIONS}
        self.call = "start"
        self.compared = False
        self.real.empty()
        self.set_clock()

    def agree(
        self, at: str, real: Callable[..., Any], model: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        """Make one call in both queues, in the session `at`; return the answer that both give."""
        self.call = model.__name__
        with self.without_error():
            answer = _answer(real, self.real.sessions[at], *given, **named)
        foretold = self.foretell(at, model, *given, **named)
        if answer != foretold:
            raise DifferenceError(self.call, "answer", real=answer, model=foretold)
        return answer

    def by_hand(self, at: str, call: str, statement: str, parameters: Sequence[object]) -> None:
        """Execute what a person may, whatever the queue's own statements have locked."""
        self.call = call
        with self.without_error():
            self.real.sessions[at].execute(statement, parameters)

    @contextmanager
    def without_error(self) -> Iterator[None]:
        """Take an error of the database's for a difference: the model has none."""
        try:
            yield
        except DatabaseError as error:
            name = str(error).partition(":")[0]
            raise DifferenceError(self.call, name, real=error, model="no such error") from error

    def foretell(self, at: str, model: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Make one call in the model only; return its answer."""
        self.call = model.__name__
        self.compared = False
        answer = _answer(model, self.models[at], *given, **named)
        self.models[at].settle()
        return answer

    @invariant()
    def tables_are_as_the_model_says_and_the_tally_as_the_tables(self) -> None:
        if self.compared:
            return
        self.compared = True
        anybody = Queue(self.database)
        for kind, rows in self.real.committed().items():
            foretold = anybody.rows(kind)
            if Counter(rows) != Counter(foretold):
                raise DifferenceError(
                    self.call,
                    _columns(rows, foretold) or f"rows of {TABLES[kind]}",
                    real=[row for row in rows if row not in foretold],
                    model=[row for row in foretold if row not in rows],
                )
        tallied, counted = self.real.tallied(), self.real.counted()
        if tallied != counted:
            raise DifferenceError(self.call, "the tally", real=tallied, model=counted)

    @invariant()
    def ledger_has_completed_orders_only_and_each_once(self) -> None:
        paid = [entry.order_id for entry in Queue(self.database).rows(Entry)]
        assert len(paid) == len(set(paid))
        assert all(self.database.committed[order_id].status == Status.COMPLETED for order_id in paid)

    def set_clock(self) -> None:
        self.real.set_clock(self.database.now, server_started_at=self.database.server_started_at)

    def can_take(self, at: str, key: Hashable) -> bool:
        """Tell whether there is such a row, and no statement would have to wait for it."""
        row = self.models[at].find(key)
        return row is not None and self.models[at].can_take(row)

    def teardown(self) -> None:
        for session in self.real.sessions.values():
            disconnect(session)


def _answer(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Return the answer, or the words of a refusal."""
    try:
        return call(*given, **named)
    except OrdersError as error:
        return f"{type(error).__name__}: {error}"


def _columns(real: list[Any], model: list[Any]) -> str:
    """Name the columns in which rows of the same key differ; none if the rows' keys differ already."""
    rows, foretold = ({row.key: row for row in side} for side in (real, model))
    if rows.keys() != foretold.keys() or len(rows) != len(real):
        return ""
    differing = {
        f"{TABLES[type(row)]}.{column}"
        for key, row in rows.items()
        for column, value, expected in zip(row._fields, row, foretold[key], strict=True)
        if value != expected
    }
    return ", ".join(sorted(differing))

"""Rows as PostgreSQL shows them to each session: what is committed, and what it wrote itself."""

from collections.abc import Hashable
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

Row = TypeVar("Row", bound=Any)


class Database:
    """What all sessions share. `now` is the database's clock; nothing but the machine moves it."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.server_started_at = now
        self.committed: dict[Hashable, Any] = {}
        self.row_locks: dict[Hashable, Session] = {}
        self.session_locks: dict[str, Session] = {}
        self.tickets = count(1)


class Session:
    """One connection. It commits each statement, unless `open`: then all waits for `commit`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.open = False
        self.written: dict[Hashable, Any] = {}

    @property
    def now(self) -> datetime:
        return self.database.now

    def rows(self, kind: type[Row]) -> list[Row]:
        """Return the rows of one table that this session sees: not what others have yet to commit."""
        seen = {**self.database.committed, **self.written}
        return [row for row in seen.values() if isinstance(row, kind)]

    def find(self, key: Hashable) -> Any:
        return self.written[key] if key in self.written else self.database.committed.get(key)

    def can_take(self, row: Any) -> bool:
        return self.database.row_locks.get(row.key, self) is self

    def take(self, row: Any) -> bool:
        """Lock the row until the transaction ends; False, without waiting, if another session has it."""
        return self.database.row_locks.setdefault(row.key, self) is self

    def write(self, row: Any) -> None:
        self.written[row.key] = row

    def edit(self, row: Any, **columns: Any) -> None:
        """Do what a person's UPDATE does."""
        self.take(row)
        self.write(row._replace(**columns))

    def delete(self, row: Any) -> None:
        self.take(row)
        self.written[row.key] = None

    def settle(self) -> None:
        """End a statement, and with it the transaction unless one was begun."""
        if not self.open:
            self.commit()

    def commit(self) -> None:
        self.database.committed.update(self.written)
        self.roll_back()

    def roll_back(self) -> None:
        """Forget what was written and locked. Tickets that were drawn stay drawn."""
        self.open = False
        self.written = {}
        for key in [key for key, owner in self.database.row_locks.items() if owner is self]:
            del self.database.row_locks[key]

    def disconnect(self) -> None:
        """Lose the connection: the open transaction rolls back, the session's locks become free."""
        self.roll_back()
        for worker_id in [name for name, owner in self.database.session_locks.items() if owner is self]:
            del self.database.session_locks[worker_id]

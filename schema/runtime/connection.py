"""Open connections to PostgreSQL on which no call can hang for ever."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import args_row
from psycopg.waiting import Ready

from schema.errors import DatabaseUnavailableError, OutcomeUnknownError
from schema.runtime import inherited, logs
from schema.runtime.driver_errors import is_read_only, translated, unavailable

CONNECT_SECONDS = 3
REPLY_SECONDS = 10.0

Row = TypeVar("Row")

_KEEPALIVE: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
}

COMMIT_DURABLY = """
SELECT pg_catalog.set_config('synchronous_commit', 'on', {local})
WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
"""
"""What makes commits durable, of this transaction (`local` is true) or of the session; how durable beyond the
server's own disk stays as its administrator wants it."""

_RELIED_ON = {
    "IntervalStyle": "postgres",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "row_security": "on",
}
"""What the statements here, their promises and the parsers of their answers are made for."""

_OURS = "".join(f"SET {name} = '{value}';" for name, value in _RELIED_ON.items())
# The order of days and months stays: a trigger of the user's may depend on it.
_OURS += "SET DateStyle = ISO; SET extra_float_digits = 1; SET lock_timeout = 0"

_FIND_SETTINGS = """
SELECT name, current_setting(name)
FROM unnest(%s::text[]) AS names (name)
"""

_SOMEBODY_S_DEFAULT = """
SELECT source IN ('global', 'database', 'user', 'database user')
FROM pg_settings
WHERE name = 'default_transaction_read_only'
"""

_log = logs.Log(__name__)
_warned_of: set[str] = set()


class DriverConnection(psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection that gives up on a server that does not reply within `reply_seconds`.

    The server's own `statement_timeout` (`reply_seconds` too), or behind a pooler our request to cancel,
    ends a slow statement first, with the connection intact. This second bound is for a server that is
    stopped or cut off: the socket is closed and the call raises `psycopg.OperationalError`, its outcome
    unknown.

    It closes too when a write finds the session read-only.

    `direct` tells that no pooler stands between: LISTEN and session locks work on such a connection only.
    `relied_on` makes the settings that statements of ours rely on.
    `refusal` is what libpq raised of a session that was read-only by default before it was told otherwise.
    """

    reply_seconds: float = REPLY_SECONDS
    direct: bool = True
    refusal: psycopg.OperationalError | None = None
    relied_on: ClassVar[str] = _OURS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for one reply, `reply_seconds` and a second at most unless `timeout` says otherwise."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return self._reply(gen, interval)
        except psycopg.errors.ReadOnlySqlTransaction:
            # A failover has turned this server into a standby: only a new connection finds the primary.
            self.pgconn.finish()
            raise
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - the only name psycopg gives this error
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"no reply from the server within {self.reply_seconds + 1:g} seconds; connection closed"
            ) from None

    def _reply(self, gen: Any, interval: float) -> Any:
        """Wait for a reply. Behind a pooler no `statement_timeout` is set: cancel a slow statement."""
        if self.direct:
            return super().wait(gen, interval, self.reply_seconds + 1)
        try:
            return super().wait(gen, interval, self.reply_seconds)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - as above
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=1)
            return super().wait(_resumed(gen), interval, 1)

    def prepare_session(self) -> None:
        """Set what every session of ours has. Behind a pooler sessions are shared: warn instead, once.

        Raises `psycopg.OperationalError` when the session can't be made writable, or when a pooler's session
        writes dates as nothing here reads them.
        """
        if self.refusal is not None and not _is_somebody_s_default(self):
            raise self.refusal
        if self.direct:
            # SET, not the `options` parameter, which a pooler refuses before we know that there is one.
            self.execute(self.settings, prepare=False)
            return
        # It may run the next statement in a session that has not prepared it.
        self.prepare_threshold = None
        _examine(self)

    @property
    def settings(self) -> str:
        """The statements that give a session what every session of ours has.

        They override the defaults that a database or role may have; what ends sessions and transactions is
        among them.
        """
        # No statement here runs long enough to gain from JIT; a wrong estimate costs half a second.
        chosen = f"SET statement_timeout = {round(self.reply_seconds * 1000)}; SET jit = off;"
        chosen += "SET idle_session_timeout = 0;"
        if self.info.server_version >= 170_000:
            chosen += "SET transaction_timeout = 0;"
        if self.refusal is not None:
            chosen += "SET default_transaction_read_only = off;"
        return f"{chosen}{COMMIT_DURABLY.format(local='false')}; {self.relied_on}"

    @classmethod
    def open(cls, url: str, *, name: str, reply_seconds: float = REPLY_SECONDS) -> Self:
        """Connect in autocommit mode as `application_name` `name`.

        `url` is any libpq connection string. Raises `DatabaseUnavailableError`, whose message holds no
        password, when no connection can be had within `CONNECT_SECONDS` per address, and of these
        `AccessDeniedError` when every host answers and none lets this program in.
        """
        parameters: dict[str, Any] = {**_KEEPALIVE, **conninfo.conninfo_to_dict(url)}
        parameters |= {"application_name": name, "client_encoding": "UTF8"}
        try:
            connection = cls._connected(parameters)
            inherited.withhold(connection)
            try:
                connection.reply_seconds = min(reply_seconds, CONNECT_SECONDS)
                connection.direct = _is_direct(connection)
                connection.reply_seconds = reply_seconds
                connection.prepare_session()
            except BaseException:
                connection.close()
                raise
        except (
            psycopg.OperationalError,
            psycopg.ProgrammingError,
            DatabaseUnavailableError,
            OutcomeUnknownError,
        ) as error:
            raise unavailable(error) from error
        return connection

    @classmethod
    def _connected(cls, parameters: dict[str, Any]) -> Self:
        """Connect, to a primary that reads only by default if there is no better one."""
        try:
            return super().connect(autocommit=True, **parameters)
        except psycopg.OperationalError as error:
            if not is_read_only(error):
                raise
            try:
                parameters = parameters | {"target_session_attrs": "primary"}
                connection = super().connect(autocommit=True, **parameters)
            except psycopg.OperationalError:
                raise error from None
            connection.refusal = error
            return connection


class Connection(DriverConnection):
    """The connection that statements take: what it executes raises `DatabaseError`s, not psycopg's errors.

    Fetching raises nothing: an answer is here when `execute` returns, and the tables' constraints keep every
    value in Python's range. All statements share a cursor, which keeps the last answer: read it before you
    run the next one.
    """

    @cached_property
    def _cursor(self) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.cursor()

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement as psycopg does, without the new cursor that is a quarter of an insert's Python."""
        try:
            return self._cursor.execute(query, params, prepare=prepare, binary=binary)
        except psycopg.Error as error:
            raise translated(error, closed=self.closed) from error

    def one(self, query: Any, params: Any = None) -> tuple[Any, ...]:
        """Run a statement that always gives one row; return that row."""
        row = self.execute(query, params).fetchone()
        if row is None:
            raise LookupError("the statement gave no row")
        return row

    @contextlib.contextmanager
    def transaction(self, *arguments: Any, **named: Any) -> Iterator[psycopg.Transaction]:
        """Begin a transaction or savepoint; commit it at the end, or roll it back when the block raises."""
        with self._translating(), super().transaction(*arguments, **named) as transaction:
            yield transaction

    def copy_in(self, statement: str, blocks: Iterable[str]) -> int:
        """Send blocks of text to a `COPY … FROM STDIN`; return how many rows the database took."""
        with self._translating(), self.cursor() as cursor:
            with cursor.copy(statement) as copying:
                for block in blocks:
                    copying.write(block)
            return cursor.rowcount

    def stream(self, query: str, row: Callable[..., Row]) -> Iterator[Row]:
        """Yield the rows of a large answer as `row(*columns)`, a few thousand at a time; in a transaction."""
        with self._translating(), self.cursor("stream", binary=True, row_factory=args_row(row)) as cursor:
            cursor.itersize = 10_000
            yield from cursor.execute(query)

    def notified(self) -> bool:
        """Tell whether a notification has come in since the last call; waits for none."""
        with self._translating():
            return any(True for _ in self.notifies(timeout=0))

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise translated(error, closed=self.closed) from error


class PooledConnection(Connection):
    """A `Connection` that a `psycopg_pool.ConnectionPool` opens, given what `open` takes."""

    @classmethod
    def connect(cls, conninfo: str = "", **parameters: Any) -> Self:
        """Open for the pool, which keeps errors to itself; `failed`, a parameter, is called with one."""
        failed = parameters.pop("failed", lambda _: None)
        try:
            return cls.open(conninfo, **parameters)
        except DatabaseUnavailableError as error:
            failed(error)
            raise


def statement_timeout_seconds(connection: Connection) -> float:
    """Return after how long the server ends a statement of this session; 0 is never."""
    (seconds,) = connection.one(
        "SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'statement_timeout'"
    )
    return float(seconds)


def _resumed(gen: Any) -> Generator[Any, Any, Any]:
    """Go on with what psycopg has given up waiting for; it must be told that nothing is ready."""
    ready = Ready.NONE
    try:
        while True:
            ready = yield gen.send(ready)
    except StopIteration as stop:
        return stop.value


def _is_direct(connection: psycopg.Connection[Any]) -> bool:
    """Compare the process id that was reported at connect, which a pooler makes up, with the server's word.

    https://www.pgbouncer.org/features.html, cancellation keys.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row == (connection.info.backend_pid,)


def _is_somebody_s_default(connection: DriverConnection) -> bool:
    """Tell whether only a database or role is read-only by default, in a session that can be told otherwise.

    A server that reads only by default may have a full disk. A pooler's sessions are shared.
    """
    return connection.direct and connection.execute(_SOMEBODY_S_DEFAULT).fetchone() == (True,)


def _examine(connection: psycopg.Connection[Any]) -> None:
    """Warn of what would be set if the session was not a pooler's."""
    names = ["DateStyle", "synchronous_commit", *_RELIED_ON]
    found: dict[str, str] = dict(connection.execute(_FIND_SETTINGS, [names]).fetchall())
    if not found["DateStyle"].startswith("ISO"):
        raise psycopg.OperationalError(
            f"behind a pooler, and DateStyle is {found['DateStyle']}: ALTER ROLE … SET DateStyle = ISO"
        )
    unfit = {name: found[name] for name, value in _RELIED_ON.items() if found[name] != value}
    if found["synchronous_commit"] == "off":
        unfit["synchronous_commit"] = "off"
    settings = " ".join(f"{name}={value}" for name, value in unfit.items())
    if settings and settings not in _warned_of:
        _warned_of.add(settings)
        _log.warning("session_settings_behind_a_pooler", settings=settings)

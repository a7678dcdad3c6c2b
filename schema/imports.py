"""Import a file of orders in chunks; each commits together with how far it got, so that none comes twice."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import psycopg

from schema import batch, logs
from schema.errors import OrderNotTakenError, OrdersError, StartError
from schema.order_files import Entry, Format, Place, read
from schema.orders import NewOrder
from schema.uuid7 import uuid7

REPLY_SECONDS = 600
"""How long the database may take for a chunk. Give the connection as long."""

CHUNK_ORDERS = 10_000
CHUNK_BYTES = 16 * 1024 * 1024

ROW_ERRORS = ("22", "23", "P0")
"""The classes of SQLSTATEs that are about a row: data exceptions, constraints, RAISE in a user's trigger.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


class ImportStateError(StartError):
    """The file can't be imported as it is now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Imported:
    """How far the file was imported: `place`, and what became of its entries."""

    place: Place
    placed: int
    rejected: int
    rejected_bytes: int
    finished: bool


class _Reject(NamedTuple):
    """An entry that is no order, or was refused as one, and why."""

    entry: Entry
    reason: str


class _RefusedError(OrdersError):
    """The database refuses a row of a chunk."""


_BEGIN = """
INSERT INTO imports (sha256, path)
VALUES (%(sha256)s, %(path)s)
ON CONFLICT (sha256) DO NOTHING
"""

_ANEW = """
UPDATE imports
SET path = %(path)s,
    line = 0,
    position = 0,
    placed = 0,
    rejected = 0,
    rejected_bytes = 0,
    started_at = clock_timestamp(),
    finished_at = NULL
WHERE sha256 = %(sha256)s
"""

_CHANGED = """
SELECT line
FROM imports
WHERE path = %(path)s
  AND sha256 <> %(sha256)s
  AND finished_at IS NULL
  AND line > 0
ORDER BY started_at DESC
LIMIT 1
"""

_STATE = """
SELECT line, position, placed, rejected, rejected_bytes, finished_at IS NOT NULL
FROM imports
WHERE sha256 = %(sha256)s
"""

_ADVANCE = """
UPDATE imports
SET line = %(line)s,
    position = %(position)s,
    placed = %(placed)s,
    rejected = %(rejected)s,
    rejected_bytes = %(rejected_bytes)s,
    finished_at = CASE WHEN %(finished)s THEN clock_timestamp() END
WHERE sha256 = %(sha256)s
  AND position = %(from)s
  AND finished_at IS NULL
"""


def import_file(
    connection: psycopg.Connection[Any],
    path: Path,
    *,
    kind: Format,
    rejects_path: Path,
    again: bool = False,
    chunk_orders: int = CHUNK_ORDERS,
    on_chunk: Callable[[Imported], None],
) -> Imported:
    """Place the orders of a file in their order; return what became of it.

    Goes on where an earlier import of the same bytes has stopped; does nothing if that was the end, unless
    `again`. Entries that are no orders, or that the database refuses, are written to `rejects_path` as
    NDJSON: `line`, `reason`, `text`. `on_chunk` is called after each commit. Raises `ImportStateError`,
    `order_files.UnreadableFileError`, or `psycopg.Error` with all committed chunks placed.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
        done = _begin(connection, sha256, path, again=again)
        if done.finished:
            return done
        most, refusal = chunk_orders, ""
        with _Rejects(rejects_path, keep_bytes=done.rejected_bytes) as rejects:
            while True:
                chunk = _Chunk(read(file, kind, start=done.place), most=most, refusal=refusal)
                try:
                    now = _place(connection, chunk, done, sha256=sha256, rejects=rejects)
                except _RefusedError as error:
                    # Again with fewer, until it is clear which one is refused.
                    most, refusal = max(chunk.placed // 2, 1), str(error) if chunk.placed == 1 else ""
                    continue
                if now == done:
                    break
                done = now
                on_chunk(done)
                most, refusal = min(2 * most, chunk_orders), ""
        finished = replace(done, finished=True)
        _advance(connection, done, finished, sha256=sha256)
        return finished


def _begin(connection: psycopg.Connection[Any], sha256: bytes, path: Path, *, again: bool) -> Imported:
    names = {"sha256": sha256, "path": str(path.absolute())}
    changed = connection.execute(_CHANGED, names).fetchone()
    if changed is not None and not again:
        raise ImportStateError(
            f"{path} has changed since its import stopped after line {changed[0]:,}: put it back as it was, "
            "or import all of it with --again"
        )
    connection.execute(_BEGIN, names)
    if again:
        connection.execute(_ANEW, names)
    row = connection.execute(_STATE, names).fetchone()
    assert row is not None  # noqa: S101 - just inserted, and nothing deletes it
    return Imported(Place(*row[:2]), *row[2:])


class _Chunk:
    """The next entries of a file, up to `most` orders. With a `refusal` the first of these is refused."""

    def __init__(self, entries: Iterator[Entry], *, most: int, refusal: str) -> None:
        self._entries = entries
        self._most = most
        self._refusal = refusal
        self.placed = 0
        self.rejects: list[_Reject] = []
        self.end: Place | None = None

    def orders(self) -> Iterator[NewOrder]:
        """Read on and yield what is an order."""
        size = 0
        for entry in self._entries:
            self.end = entry.end
            size += len(entry.source)
            if entry.order is None:
                self.rejects.append(_Reject(entry, entry.reason))
            elif self._refusal:
                self.rejects.append(_Reject(entry, self._refusal))
                self._refusal = ""
            else:
                self.placed += 1
                yield entry.order
            if self.placed >= self._most or len(self.rejects) >= CHUNK_ORDERS or size >= CHUNK_BYTES:
                return


def _place(
    connection: psycopg.Connection[Any],
    chunk: _Chunk,
    done: Imported,
    *,
    sha256: bytes,
    rejects: "_Rejects",
) -> Imported:
    """Place a chunk, note its rejects and how far that is, and commit it all; `done` at the file's end.

    Raises `_RefusedError`, nothing done, if the database refuses an order of it.
    """
    with connection.transaction():
        # A table with slow triggers takes its time; behind a pooler the session is everybody's.
        connection.execute(f"SET LOCAL statement_timeout = '{REPLY_SECONDS} s'")
        _insert(connection, chunk)
        if chunk.end is None:
            return done
        now = Imported(
            place=chunk.end,
            placed=done.placed + chunk.placed,
            rejected=done.rejected + len(chunk.rejects),
            rejected_bytes=rejects.add(chunk.rejects),
            finished=False,
        )
        _advance(connection, done, now, sha256=sha256)
    return now


def _insert(connection: psycopg.Connection[Any], chunk: _Chunk) -> None:
    try:
        taken = batch.copy(connection, chunk.orders(), first=uuid7())
    except psycopg.Error as error:
        if chunk.placed and (error.sqlstate or "")[:2] in ROW_ERRORS:
            raise _RefusedError(logs.first_line(error)) from error
        raise
    if taken != chunk.placed:
        raise _RefusedError(str(OrderNotTakenError()))


def _advance(connection: psycopg.Connection[Any], done: Imported, now: Imported, *, sha256: bytes) -> None:
    """Note how far the import is; raise `ImportStateError` if another process has moved it meanwhile."""
    values = {
        "sha256": sha256,
        "from": done.place.position,
        "line": now.place.line,
        "position": now.place.position,
        "placed": now.placed,
        "rejected": now.rejected,
        "rejected_bytes": now.rejected_bytes,
        "finished": now.finished,
    }
    if connection.execute(_ADVANCE, values).rowcount != 1:
        raise ImportStateError("another process is importing the same file: this one stops")


class _Rejects:
    """The file of what was rejected; it is there once there is something in it.

    What is beyond `keep_bytes` was written for a chunk that was not committed, and is cut off.
    """

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        self._path = path
        self._size = min(keep_bytes, path.stat().st_size if path.exists() else 0)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._size:
            os.truncate(self._path, self._size)
        else:
            self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rejects: list[_Reject]) -> int:
        """Write them durably; return the file's length."""
        if rejects:
            if self._file is None:
                self._file = self._path.open("ab")
            for reject in rejects:
                line = {
                    "line": reject.entry.line,
                    "reason": reject.reason,
                    "text": reject.entry.source.decode(errors="backslashreplace").rstrip("\r\n"),
                }
                self._size += self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._size

"""Import a file of orders in chunks; each commits together with how far it got, so that none comes twice."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import psycopg

from schema import batch, logs
from schema.errors import OrderNotTakenError, StartError
from schema.order_files import Entry, Format, Place, read
from schema.orders import NewOrder
from schema.uuid7 import run_from, uuid7

CHUNK_ENTRIES = 10_000
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


class Reject(NamedTuple):
    """An entry that is no order, and why."""

    entry: Entry
    reason: str


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
    chunk_entries: int = CHUNK_ENTRIES,
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
        entries = read(file, kind, start=done.place)
        with _Rejects(rejects_path, keep_bytes=done.rejected_bytes) as rejects:
            for first in entries:
                chunk = _Chunk(chain([first], entries), start=done.place, count=chunk_entries)
                done = _place(connection, chunk, done, sha256=sha256, rejects=rejects)
                on_chunk(done)
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
    """The next entries of a file, some at a time; `taken` are those that were read."""

    def __init__(self, entries: Iterator[Entry], *, start: Place, count: int) -> None:
        self._entries = entries
        self._count = count
        self._end = start.position + CHUNK_BYTES
        self.taken: list[Entry] = []

    def orders(self) -> Iterator[NewOrder]:
        """Read on and yield what is an order."""
        for entry in self._entries:
            self.taken.append(entry)
            if entry.order is not None:
                yield entry.order
            if len(self.taken) >= self._count or entry.end.position >= self._end:
                return


def _place(
    connection: psycopg.Connection[Any],
    chunk: _Chunk,
    done: Imported,
    *,
    sha256: bytes,
    rejects: "_Rejects",
) -> Imported:
    """Place a chunk, note its rejects and how far that is, and commit it all."""
    with connection.transaction():
        refused = [
            *_refused(connection, chunk.orders(), chunk.taken),
            *(Reject(entry, entry.reason) for entry in chunk.taken if entry.order is None),
        ]
        now = Imported(
            place=chunk.taken[-1].end,
            placed=done.placed + len(chunk.taken) - len(refused),
            rejected=done.rejected + len(refused),
            rejected_bytes=rejects.add(sorted(refused, key=lambda reject: reject.entry.line)),
            finished=False,
        )
        _advance(connection, done, now, sha256=sha256)
    return now


def _refused(
    connection: psycopg.Connection[Any], orders: Iterator[NewOrder], taken: list[Entry]
) -> list[Reject]:
    """Insert orders, which are those of `taken` by the time they are all read; return what is refused.

    All that a refusal may be about is tried again by halves, until it is about one.
    """
    try:
        with connection.transaction():
            _insert(connection, orders, taken)
    except (OrderNotTakenError, psycopg.Error) as error:
        suspects = [entry for entry in taken if entry.order is not None]
        if not suspects or not _is_about_a_row(error):
            raise
        reason = logs.first_line(error)
    else:
        return []
    if len(suspects) == 1:
        return [Reject(suspects[0], reason)]
    half = len(suspects) // 2
    return [
        reject
        for part in (suspects[:half], suspects[half:])
        for reject in _refused(connection, (entry.order for entry in part if entry.order), part)
    ]


def _insert(connection: psycopg.Connection[Any], orders: Iterator[NewOrder], taken: list[Entry]) -> None:
    count = batch.copy(connection, run_from(uuid7()), orders)
    if count != sum(entry.order is not None for entry in taken):
        raise OrderNotTakenError


def _is_about_a_row(error: Exception) -> bool:
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "")[:2] in ROW_ERRORS
    return isinstance(error, OrderNotTakenError)


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

    def add(self, rejects: list[Reject]) -> int:
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

"""Import a file of orders in chunks. Each commits together with its offset, so that no order comes twice."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from schema.errors import OrderNotTakenError, OrdersError, StartError, StatementRefusedError
from schema.intake.files import Entry, Format, Offset, path_text, read
from schema.intake.progress import Imported, ImportedElsewhereError, ImportStateError, advance, begin
from schema.intake.rejected import Rejects
from schema.order import NewOrder
from schema.queue import batch
from schema.runtime.connection import Connection
from schema.uuid7 import Series

REPLY_SECONDS = 600
"""How long the database may take for a chunk. Give the connection as long."""

MAX_REJECTS = 10_000
"""Entries that an import rejects at most, unless told otherwise."""

CHUNK_ORDERS = 10_000
CHUNK_BYTES = 16 * 1024 * 1024

ROW_ERRORS = ("22", "23", "P0")
"""The classes of SQLSTATEs that are about a row: data exceptions, constraints, RAISE in a user's trigger.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


class TooManyRejectsError(StartError):
    """So many entries are no orders that the file is probably not what was meant."""

    def __init__(self, path: Path, done: Imported) -> None:
        super().__init__(
            f"{path_text(path)}: {done.rejected:,} entries up to line {done.offset.line:,} are no orders, so"
            f" the import stops, {done.placed:,} orders placed: to go on, give the same command with a larger"
            " --max-rejected"
        )


class _RefusedError(OrdersError):
    """The database refuses a row of a chunk."""


class _Sizes(NamedTuple):
    orders: int
    rejects: int


def import_file(
    connection: Connection,
    path: Path,
    *,
    kind: Format,
    rejects_path: Path,
    again: bool = False,
    max_rejects: int = MAX_REJECTS,
    chunk_orders: int = CHUNK_ORDERS,
    on_chunk: Callable[[Imported], None],
) -> Imported:
    """Place the orders of a file in their order; return what became of it.

    Goes on where an earlier import of the same bytes has stopped; does nothing if that was the end, unless
    `again`. Entries that are no orders, or that the database refuses, go to `rejects_path`. `on_chunk` is
    called after each commit.

    With more than `max_rejects` of these, over all its runs, it stops: `TooManyRejectsError`.

    Raises `progress.ImportStateError`, also if the file is changed meanwhile, `files.UnreadableFileError`,
    `rejected.RejectsInTheWayError`, or `DatabaseError`. What was committed by then stays placed.
    """
    with open(path, "rb", opener=_open) as file:
        _lock(file, path)
        sha256 = _hash(file)
        done = begin(connection, sha256, path, again=again)
        if done.finished:
            return done
        with Rejects(rejects_path, keep_bytes=done.rejected_bytes) as rejects:
            sizes = _Sizes(orders=chunk_orders, rejects=max_rejects)
            for now in _chunks(connection, file, kind, done, sha256=sha256, rejects=rejects, most=sizes):
                done = now
                on_chunk(now)
            if done.rejected > max_rejects:
                raise TooManyRejectsError(path, done)
        if _hash(file) != sha256:
            raise ImportStateError(
                f"{path_text(path)} was changed while it was imported: put it back as it was"
            )
        finished = replace(done, finished=True)
        advance(connection, done, finished, sha256=sha256)
        return finished


def _open(path: str, flags: int) -> int:
    """Open a file without waiting, as for somebody who writes to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _lock(file: BufferedReader, path: Path) -> None:
    """Keep other imports off the file until it is closed, where the file system can.

    NFS locks only what is open for writing. There, too, no order comes twice: `progress.advance` sees to it.
    """
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ImportStateError(f"{path_text(path)} can be read only once: save it as a file first")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ImportedElsewhereError from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What file systems say that have no such locks."""


def _hash(file: BufferedReader) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()


def _chunks(
    connection: Connection,
    file: BufferedReader,
    kind: Format,
    done: Imported,
    *,
    sha256: bytes,
    rejects: Rejects,
    most: _Sizes,
) -> Iterator[Imported]:
    """Place one chunk after another; yield how far that is after each commit. Ends beyond `most.rejects`."""
    # What is appended meanwhile is not in the hash.
    end = file.seek(0, os.SEEK_END)
    size, refusal = most.orders, ""
    while done.rejected <= most.rejects:
        sizes = _Sizes(orders=size, rejects=most.rejects - done.rejected)
        chunk = _Chunk(read(file, kind, start=done.offset, end=end), most=sizes, refusal=refusal)
        try:
            now = _place(connection, chunk, done, sha256=sha256, rejects=rejects)
        except _RefusedError as error:
            # Again with fewer, until it is clear which one is refused.
            size, refusal = max(chunk.placed // 2, 1), str(error) if chunk.placed == 1 else ""
            continue
        if now == done:
            return
        done = now
        yield done
        size, refusal = min(2 * size, most.orders), ""


class _Chunk:
    """The next entries of a file, up to `most.orders` orders and the first reject beyond `most.rejects`.

    With a `refusal` the first order is refused.
    """

    def __init__(self, entries: Iterator[Entry], *, most: _Sizes, refusal: str) -> None:
        self._entries = entries
        self._most = most
        self._refusal = refusal
        self.placed = 0
        self.rejects: list[Entry] = []
        self.end: Offset | None = None

    def orders(self) -> Iterator[NewOrder]:
        """Read on and yield what is an order."""
        size = 0
        for entry in self._entries:
            self.end = entry.end
            size += len(entry.source)
            if entry.order is None:
                self.rejects.append(entry)
            elif self._refusal:
                self.rejects.append(entry._replace(order=None, reason=self._refusal))
                return
            else:
                self.placed += 1
                yield entry.order
            enough = min(self._most.rejects + 1, CHUNK_ORDERS)
            if self.placed >= self._most.orders or len(self.rejects) >= enough or size >= CHUNK_BYTES:
                return


def _place(
    connection: Connection, chunk: _Chunk, done: Imported, *, sha256: bytes, rejects: Rejects
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
            offset=chunk.end,
            placed=done.placed + chunk.placed,
            rejected=done.rejected + len(chunk.rejects),
            rejected_bytes=rejects.add(chunk.rejects),
            finished=False,
        )
        advance(connection, done, now, sha256=sha256)
    return now


def _insert(connection: Connection, chunk: _Chunk) -> None:
    try:
        taken = batch.copy(connection, chunk.orders(), numbers=Series.new())
        # What a user has deferred to the commit would fail there, where nobody knows which row it was.
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except StatementRefusedError as error:
        if chunk.placed and error.sqlstate[:2] in ROW_ERRORS:
            raise _RefusedError(str(error)) from error
        raise
    if taken != chunk.placed:
        raise _RefusedError(str(OrderNotTakenError()))

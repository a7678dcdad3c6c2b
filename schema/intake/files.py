"""Read a file of orders one by one, and know at each how far into the file it is.

Two formats: NDJSON, an order as `POST /orders` takes it on each line; and CSV (RFC 4180) whose first record
names the columns `user_id`, `item_ids` (a JSON array in its cell) and `total_amount`, in any order.
"""

import codecs
import csv
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from schema.errors import OrdersError, StartError
from schema.intake.fields import InvalidOrderError
from schema.intake.json_text import NotJsonError
from schema.intake.parse import parse, parse_row
from schema.order import NewOrder

MAX_LINE_BYTES = 1024 * 1024

# One cell may have as much as a line; the default is an eighth of that.
csv.field_size_limit(MAX_LINE_BYTES)

_COLUMNS = ("user_id", "item_ids", "total_amount")


class Format(StrEnum):
    """What a file of orders can be."""

    NDJSON = "ndjson"
    CSV = "csv"


SUFFIXES = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV}


class Offset(NamedTuple):
    """How far a file was read: so many lines, so many bytes."""

    line: int = 0
    position: int = 0


class Entry(NamedTuple):
    """An order of a file, or the `reason` why it is none. `line` is its first one, `end` where it ends."""

    line: int
    source: bytes
    end: Offset
    order: NewOrder | None
    reason: str = ""


class UnreadableFileError(StartError):
    """The file as a whole is not one of orders."""


def path_text(path: Path) -> str:
    """Return a path as text that can be stored and printed, whatever bytes it has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def format_of(path: Path) -> Format:
    """Tell a file's format by the end of its name; raise `UnreadableFileError` if that tells nothing."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UnreadableFileError(
            f"{path} has none of the endings {', '.join(SUFFIXES)}: say its --format"
        ) from None


_FOREIGN = {
    (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE): "is UTF-32",
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE): "is UTF-16",
    tuple(f"{character}\0".encode() for character in '{u"it'): "looks like UTF-16",
    (b"PK\x03\x04",): "is a ZIP archive, as an Excel workbook is",
    (b"\x1f\x8b",): "is compressed by gzip",
}
"""What a file begins with that is no text in UTF-8, and what that is. Of UTF-16 without a mark the first
character is a brace, or one of those that a header of ours can begin with."""


def read(file: BinaryIO, kind: Format, *, start: Offset, end: int = sys.maxsize) -> Iterator[Entry]:
    """Yield what stands in `file` from `start`, the end of an earlier entry or `Offset()`, to the byte `end`.

    Blank lines are no entries. Raises `UnreadableFileError` for what is another kind of file.
    """
    file.seek(0)
    beginning = file.read(4)
    for signs, found in _FOREIGN.items():
        if beginning.startswith(signs):
            raise UnreadableFileError(f"the file {found}: save it as UTF-8 text, {kind.upper()}")
    if kind is Format.NDJSON:
        return _read_ndjson(_Lines(file, start, end=end))
    return _read_csv(file, start, end=end)


class _Lines:
    """The lines of a file, as bytes; keeps count. One that is too long is cut, and one byte too long."""

    def __init__(self, file: BinaryIO, start: Offset, *, end: int) -> None:
        self._file = file
        file.seek(start.position)
        self._end = end
        self.count = start.line
        self.position = start.position

    @property
    def offset(self) -> Offset:
        return Offset(self.count, self.position)

    def __iter__(self) -> Iterator[bytes]:
        while line := self._piece():
            self.count += 1
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = self._piece()
            yield line

    def _piece(self) -> bytes:
        piece = self._file.readline(min(MAX_LINE_BYTES + 1, self._end - self.position))
        self.position += len(piece)
        return piece


def _read_ndjson(lines: _Lines) -> Iterator[Entry]:
    for line in lines:
        if line.isspace():
            continue
        order, reason = None, ""
        try:
            order = parse(_whole(line), what="the line")
        except (NotJsonError, InvalidOrderError, _EntryError) as error:
            reason = str(error)
        yield Entry(lines.count, line, lines.offset, order, reason)


class _EntryError(OrdersError):
    """What is wrong with the text of one entry."""


def _whole(line: bytes) -> bytes:
    if len(line) > MAX_LINE_BYTES:
        raise _EntryError(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    return line


def _read_csv(file: BinaryIO, start: Offset, *, end: int) -> Iterator[Entry]:
    header = _Records(_Lines(file, Offset(), end=end))
    try:
        names, found = next(header, []), ""
    except csv.Error:
        names, found = [], ""
    except _EntryError as error:
        names, found = [], str(error)
    if sorted(names) != sorted(_COLUMNS):
        found = found or _found_in_header(b"".join(header.source))
        raise UnreadableFileError(
            f"the first line of the file has to name the columns {','.join(_COLUMNS)}: {found}"
        )
    records = _Records(_Lines(file, max(start, header.lines.offset), end=end))
    while True:
        order, reason = None, ""
        try:
            cells = next(records)
            order = parse_row(_row(names, cells)) if cells else None
        except StopIteration:
            return
        except (csv.Error, InvalidOrderError, _EntryError) as error:
            reason = str(error)
        if order or reason:
            yield Entry(records.first_line, b"".join(records.source), records.lines.offset, order, reason)


def _found_in_header(line: bytes) -> str:
    """Say what a first line is that does not name the columns."""
    text = line[:_SHOWN].decode("utf-8-sig", errors="replace").strip()
    if text.lower().startswith("sep="):
        return f"it is Excel's {text!r}; remove it, and separate the cells by commas"
    for separator, name in _SEPARATORS.items():
        if sorted(cell.strip('"') for cell in text.split(separator)) == sorted(_COLUMNS):
            return f"its cells are separated by {name}, not by commas"
    return f"it is {text!r}" if text else "it is empty"


_SHOWN = 200
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _row(names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise _EntryError(f"the record has {len(cells)} cells, expected {len(names)}")
    return dict(zip(names, cells, strict=True))


class _Records:
    """The records of a CSV file, each with the lines that it took."""

    def __init__(self, lines: _Lines) -> None:
        self.lines = lines
        self.first_line = 0
        self.source: list[bytes] = []
        self._fault: OrdersError | None = None
        self._reader = csv.reader(map(self._decode, lines), strict=True)

    def __iter__(self) -> "_Records":
        return self

    def __next__(self) -> list[str]:
        self.first_line = self.lines.count + 1
        self.source = []
        self._fault = None
        record = next(self._reader)
        if self._fault is not None:
            raise self._fault
        return record

    def _decode(self, line: bytes) -> str:
        """Return the line's text. A fault is raised when all lines of its record are read, not before."""
        self.source.append(line)
        try:
            return _whole(line).decode("utf-8-sig" if self.lines.count == 1 else "utf-8")
        except _EntryError as error:
            self._fault = error
        except UnicodeDecodeError as error:
            self._fault = _EntryError(f"the line is not UTF-8 (byte {error.start})")
        return line.decode(errors="surrogateescape")

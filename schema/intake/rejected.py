"""The file of what an import rejected: one JSON object a line, with `line`, `reason` and `text`."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

from schema.errors import StartError
from schema.intake.files import Entry


class RejectsInTheWayError(StartError):
    """The file can't be written without harm to what is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already: move it away, or name another file with --rejected")


class Rejects:
    """Writes to `path`, which is made when there is something to write.

    `keep_bytes` of it are from before; what is beyond was written for a chunk that was not committed, and is
    cut off. Raises `RejectsInTheWayError` if nothing is from before and something is there.
    """

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        size = path.stat().st_size if path.exists() else 0
        if (path.exists() and not path.is_file()) or (size and not keep_bytes):
            raise RejectsInTheWayError(path)
        self._path = path
        self._size = min(keep_bytes, size)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Cut off what is too much."""
        if self._size:
            os.truncate(self._path, self._size)
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()

    def add(self, rejects: Iterable[Entry]) -> int:
        """Write them durably; return the file's length."""
        lines = b"".join(map(_line, rejects))
        if lines:
            if self._file is None:
                self._file = self._path.open("ab")
            self._size += self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._size


def _line(reject: Entry) -> bytes:
    text = reject.source.decode(errors="backslashreplace").rstrip("\r\n")
    return json.dumps({"line": reject.line, "reason": reject.reason, "text": text}).encode() + b"\n"

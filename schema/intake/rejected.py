"""The file of what an import rejected: one JSON object a line, with `line`, `reason` and `text`."""

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from schema.errors import StartError
from schema.intake.files import Entry, path_text


class RejectsInTheWayError(StartError):
    """The file can't be written without harm to what is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path_text(path)} is there already: move it away, or name another file with --rejected"
        )


class Rejects:
    """Writes to `path`, which is made when there is something to write.

    `keep_bytes` of it are from before; what is beyond was written for a chunk that was not committed, and is
    cut off. Raises `RejectsInTheWayError` if nothing is from before and something is there, and for a link or
    what else is no file: another user may have put it there. What can't be written raises `StartError`.
    """

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        self._path = path
        self._size = 0
        self._file: BinaryIO | None = None
        if not os.path.lexists(path):
            return
        if not keep_bytes:
            raise RejectsInTheWayError(path)
        with self._naming_itself():
            self._file = self._open(os.O_APPEND)
            self._size = min(keep_bytes, os.fstat(self._file.fileno()).st_size)

    def __enter__(self) -> Self:
        """Cut off what is too much."""
        if self._file is not None:
            with self._naming_itself():
                self._file.truncate(self._size)
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()

    def add(self, rejects: Iterable[Entry]) -> int:
        """Write them durably; return the file's length."""
        lines = b"".join(map(_line, rejects))
        if lines:
            with self._naming_itself():
                if self._file is None:
                    self._file = self._open(os.O_APPEND | os.O_CREAT | os.O_EXCL)
                self._size += self._file.write(lines)
                self._file.flush()
                os.fsync(self._file.fileno())
        return self._size

    def _open(self, flags: int) -> BinaryIO:
        """Open the file itself: no link is followed, and no reader of a pipe is waited for."""
        number = os.open(
            self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o666
        )
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise RejectsInTheWayError(self._path)
        return os.fdopen(number, "ab")

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_FILE:
                raise RejectsInTheWayError(self._path) from error
            raise StartError(f"{path_text(self._path)}: {error.strerror or error}") from error


_NO_FILE = (errno.EEXIST, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR)
"""What is said of a link (two systems, two words), of a pipe without a reader, and of a folder."""


def _line(reject: Entry) -> bytes:
    text = reject.source.decode(errors="backslashreplace").rstrip("\r\n")
    return json.dumps({"line": reject.line, "reason": reject.reason, "text": text}).encode() + b"\n"

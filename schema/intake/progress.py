"""How far each file was imported, in the table `imports`. A file is known by its content."""

from dataclasses import dataclass
from pathlib import Path

from schema.errors import StartError
from schema.intake.files import Offset, path_text
from schema.runtime.connection import Connection


class ImportStateError(StartError):
    """The file can't be imported as it is now; the message says why and what to do."""


class ImportedElsewhereError(ImportStateError):
    """Another process is importing the same file."""

    def __init__(self) -> None:
        super().__init__("another process is importing the same file: this one stops")


@dataclass(frozen=True, slots=True)
class Imported:
    """How far the file was imported: `offset`, and what became of its entries."""

    offset: Offset
    placed: int
    rejected: int
    rejected_bytes: int
    finished: bool


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
  AND finished_at IS NOT NULL
"""

_CHANGED = """
SELECT line
FROM (
    SELECT sha256, line, finished_at
    FROM imports
    WHERE path = %(path)s
    ORDER BY started_at DESC
    LIMIT 1
) AS latest
WHERE sha256 <> %(sha256)s
  AND finished_at IS NULL
  AND line > 0
  AND NOT EXISTS (SELECT FROM imports WHERE sha256 = %(sha256)s)
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


def begin(connection: Connection, sha256: bytes, path: Path, *, again: bool) -> Imported:
    """Enter the file, and return how far it was imported; with `again` a finished one begins anew.

    Raises `ImportStateError` if `path` was last imported with another content, and not to its end.
    """
    names = {"sha256": sha256, "path": path_text(path.absolute())}
    changed = connection.execute(_CHANGED, names).fetchone()
    if changed is not None and not again:
        raise ImportStateError(
            f"{path_text(path)} has changed since its import stopped after line {changed[0]:,}: "
            "put it back as it was, or import all of it with --again"
        )
    connection.execute(_BEGIN, names)
    if again:
        connection.execute(_ANEW, names)
    line, position, *rest = connection.one(_STATE, names)
    return Imported(Offset(line, position), *rest)


def advance(connection: Connection, done: Imported, now: Imported, *, sha256: bytes) -> None:
    """Note how far the import is; raise `ImportedElsewhereError` if another process has moved it."""
    values = {
        "sha256": sha256,
        "from": done.offset.position,
        "line": now.offset.line,
        "position": now.offset.position,
        "placed": now.placed,
        "rejected": now.rejected,
        "rejected_bytes": now.rejected_bytes,
        "finished": now.finished,
    }
    if connection.execute(_ADVANCE, values).rowcount != 1:
        raise ImportedElsewhereError

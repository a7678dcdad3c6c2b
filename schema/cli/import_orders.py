"""`orders import FILE`: what it says to the person who typed it."""

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from schema import revision
from schema.embedded import locate
from schema.errors import DatabaseError, StartError
from schema.intake import files, importer
from schema.intake.progress import Imported, shown
from schema.queue import wake
from schema.runtime import startup
from schema.runtime.config import DatabaseConfig

_BAR_WIDTH = 30
_SAY_SECONDS = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="NDJSON (.ndjson, .jsonl) or CSV (.csv)")
    parser.add_argument("--format", choices=list(files.Format), help="what it is, whatever its name")
    parser.add_argument(
        "--rejected", type=Path, metavar="FILE", help="where bad lines go (FILE.rejected.ndjson)"
    )
    parser.add_argument("--again", action="store_true", help="place the orders of a known file once more")


def run(options: Namespace) -> int:
    """Import the file; return 0 if each of its entries is an order now, 1 if some were rejected."""
    path: Path = options.file
    kind = files.Format(options.format) if options.format else files.format_of(path)
    rejects_path = options.rejected or path.with_name(path.name + ".rejected.ndjson")
    progress = _Progress(path)
    with startup.connect(
        locate.resolve(DatabaseConfig.from_environment()), name="orders-import"
    ) as connection:
        revision.check(connection)
        connection.reply_seconds = importer.REPLY_SECONDS

        def on_chunk(done: Imported) -> None:
            wake.notify(connection)
            progress.show(done)

        try:
            done = importer.import_file(
                connection,
                path,
                kind=kind,
                rejects_path=rejects_path,
                again=options.again,
                on_chunk=on_chunk,
            )
        except (DatabaseError, KeyboardInterrupt) as error:
            raise ImportStoppedError(error, progress.last) from error
        except OSError as error:
            raise StartError(f"{error.filename or rejects_path}: {error.strerror or error}") from error
        finally:
            progress.end()
    return _report(
        done, path, rejects_path=rejects_path, was_done=progress.last is None and done.offset.line > 0
    )


class ImportStoppedError(StartError):
    """The import ended before the file did."""

    def __init__(self, cause: BaseException, last: Imported | None) -> None:
        reason = "interrupted" if isinstance(cause, KeyboardInterrupt) else str(cause)
        far = f"after line {last.offset.line:,}" if last else "before anything more was imported"
        super().__init__(f"stopped {far} ({reason}): give the same command again to go on from there")


def _report(done: Imported, path: Path, *, rejects_path: Path, was_done: bool) -> int:
    counts = f"{done.placed:,} orders placed, {done.rejected:,} lines rejected"
    known = " has been imported before" if was_done else ""
    print(f"{shown(path)}{known}: {counts}")
    if was_done:
        print("nothing is done now; --again places its orders once more")
    if done.rejected:
        print(f"{shown(rejects_path)} has the rejected lines, with reasons")
    return 1 if done.rejected else 0


class _Progress:
    """A bar where a person looks on, else a line now and then."""

    def __init__(self, path: Path) -> None:
        self._size = path.stat().st_size if path.is_file() else 0
        self._began_at = self._said_at = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self.last: Imported | None = None

    def show(self, done: Imported) -> None:
        """Show how far it is, after a chunk of it."""
        self.last = done
        now = time.monotonic()
        if self._on_terminal:
            print(f"\r{self._line(done, now)}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now >= self._said_at + _SAY_SECONDS:
            self._said_at = now
            print(self._line(done, now), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar's line."""
        if self._on_terminal and self.last is not None:
            print(file=sys.stderr, flush=True)

    def _line(self, done: Imported, now: float) -> str:
        share = done.offset.position / max(self._size, 1)
        bar = f"[{'#' * int(_BAR_WIDTH * share):<{_BAR_WIDTH}}] " if self._on_terminal else ""
        counts = f"{done.placed:,} orders, {done.rejected:,} rejected"
        return f"{bar}{share:4.0%}  {counts}, {now - self._began_at:.0f} s"

"""`orders import FILE`: what it says to the person who typed it."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from schema.cli import session
from schema.cli.terminal import answer, document, example, json_option
from schema.errors import DatabaseError, StartError
from schema.intake import files, importer
from schema.intake.progress import Imported, shown
from schema.queue import wake

_BAR_WIDTH = 30
_SAY_SECONDS = 10.0

_PATH = click.Path(path_type=Path)


@click.command(
    "import",
    epilog=example(
        "An order in NDJSON, and in CSV below its header:",
        '  {"user_id": "ada", "item_ids": ["tea", "milk"], "total_amount": 250.75}',
        "  user_id,item_ids,total_amount",
        '  ada,"[""tea"", ""milk""]",250.75',
    ),
)
@click.argument("file", type=_PATH)
@click.option(
    "--format",
    "kind",
    type=click.Choice([form.value for form in files.Format]),
    help="What it is, whatever its name.",
)
@click.option("--rejected", type=_PATH, metavar="FILE", help="Where bad lines go (FILE.rejected.ndjson).")
@click.option("--again", is_flag=True, help="Place the orders of a known file once more.")
@json_option
def import_(file: Path, *, kind: str | None, rejected: Path | None, again: bool, as_json: bool) -> int:
    """Place the orders of a file.

    FILE is NDJSON (.ndjson, .jsonl) or CSV (.csv). An import that was stopped goes on where it was when the
    same command is given again. The exit status is 1 if lines were rejected.
    """
    form = files.Format(kind) if kind else files.format_of(file)
    rejects = rejected or file.with_name(file.name + ".rejected.ndjson")
    progress = _Progress(file)
    done = _import(file, form, rejects=rejects, again=again, progress=progress)
    known = progress.last is None and done.offset.line > 0
    facts = document(
        file=shown(file),
        placed=done.placed,
        rejected=done.rejected,
        rejected_file=shown(rejects) if done.rejected else None,
        imported_before=known,
    )
    answer(facts, _report(done, file, rejects=rejects, known=known), as_json=as_json)
    return 1 if done.rejected else 0


def _import(path: Path, kind: files.Format, *, rejects: Path, again: bool, progress: "_Progress") -> Imported:
    with session.connect("orders-import") as connection:
        connection.reply_seconds = importer.REPLY_SECONDS

        def on_chunk(done: Imported) -> None:
            wake.notify(connection)
            progress.show(done)

        try:
            return importer.import_file(
                connection, path, kind=kind, rejects_path=rejects, again=again, on_chunk=on_chunk
            )
        except (DatabaseError, KeyboardInterrupt) as error:
            raise ImportStoppedError(error, progress.last) from error
        except OSError as error:
            raise StartError(f"{error.filename or rejects}: {error.strerror or error}") from error
        finally:
            progress.end()


class ImportStoppedError(StartError):
    """The import ended before the file did."""

    def __init__(self, cause: BaseException, last: Imported | None) -> None:
        reason = "interrupted" if isinstance(cause, KeyboardInterrupt) else str(cause)
        far = f"after line {last.offset.line:,}" if last else "before anything more was imported"
        super().__init__(f"stopped {far} ({reason}): give the same command again to go on from there")


def _report(done: Imported, path: Path, *, rejects: Path, known: bool) -> Iterator[str]:
    before = " has been imported before" if known else ""
    yield f"{shown(path)}{before}: {done.placed:,} orders placed, {done.rejected:,} lines rejected"
    if known:
        yield "nothing is done now; --again places its orders once more"
    if done.rejected:
        yield f"{shown(rejects)} has the rejected lines, with reasons"


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
